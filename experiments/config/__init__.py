"""Config files, components by name, ranges of numbers, and the table of keys. This package builds no objects."""
