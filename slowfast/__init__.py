"""Video action recognition: UniFormer models with motion attention (EMIM, arXiv 2510.18705)."""

__version__ = "0.1.0"
