"""Layers of the networks: images are (B, H, W, C), embeddings (B, E); one subject per file."""
