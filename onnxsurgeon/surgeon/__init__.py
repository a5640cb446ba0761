"""The searches, which train and operate in turn: growing and shrinking, and the paper's Algorithm 1."""
