"""Training and testing of video-action-recognition models with Explicit Motion Information Mining (EMIM)."""
