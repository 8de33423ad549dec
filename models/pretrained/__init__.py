"""The weights of other code bases: files are read as tensors alone, never executed, and become a network's variables."""
