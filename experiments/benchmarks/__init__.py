"""What `python -m experiments benchmark` measures: an experiment's speed, or the accuracy of the sampling methods."""
