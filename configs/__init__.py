"""Experiments as plain Python: `base.py` has every key, `parts/` the pieces, each other file is one experiment."""
