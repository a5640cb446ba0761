"""Networks for other places: the training loop as a folder of files, and weights that were trained elsewhere."""
