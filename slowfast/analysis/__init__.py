"""After a run: scores, studies over many runs, tables and plots."""
