"""Config files, choices among names, ranges of numbers, and the generated table of keys. Builds nothing."""
