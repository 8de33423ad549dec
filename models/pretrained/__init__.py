"""Import of weights from other code bases; files are read as data, and no code in them is executed."""
