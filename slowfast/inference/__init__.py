"""Use of trained models: load them, predict, explain, export."""
