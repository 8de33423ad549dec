"""Pages made from the folders of runs."""
