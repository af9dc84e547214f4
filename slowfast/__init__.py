"""Video action recognition: UniFormer models with motion attention (EMIM)."""

__version__ = "0.1.0"
