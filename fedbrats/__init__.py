"""Federated brain-tumour segmentation across the real BraTS institutions."""

from fedbrats import light_monai

__version__ = "0.1.0"

light_monai.install()
