"""Models from the folder of a run or from another code base, and data sets for a run."""
