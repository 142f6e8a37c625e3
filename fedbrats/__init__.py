"""Federated brain-tumour segmentation across the real BraTS institutions."""

__version__ = "0.1.0"
