"""Calibration: the moments of a sample of the data at the layers of a network, which surgeries need."""
