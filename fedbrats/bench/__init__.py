"""What the federation costs on top of plain PyTorch."""
