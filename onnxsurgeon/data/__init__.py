"""Data sets: the named ones and the user's own, and what a network sees of them."""
