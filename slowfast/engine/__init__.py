"""Training, evaluation and what surrounds them: checkpoints, results, the run itself."""
