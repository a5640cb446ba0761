"""Data sets, named ones and the user's own, and the form in which a network takes their rows."""
