"""Trained networks leave for other places: the training loop as a folder of files, and weights trained elsewhere."""
