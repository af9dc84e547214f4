"""Studies: configurations times seeds, from what is to be run (``plan``) over running it (``launch``) to a report.

A study has no files of its own for what a run has found: everything is read from the folders of the runs, in which the
engine has left it (``test_results.json``, ``test_scores.npz``, ``log.jsonl``, ``environment.json``).
"""
