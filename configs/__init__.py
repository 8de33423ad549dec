"""Experiments as Python files: `base.py` defines all keys, `parts/` has shared parts, other files are experiments."""
