"""Augmentation: frames to the clips that models are trained on and tested with."""
