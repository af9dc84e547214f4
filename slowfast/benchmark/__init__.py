"""Measurements of speed and memory: the operator, whole models, the data loader."""
