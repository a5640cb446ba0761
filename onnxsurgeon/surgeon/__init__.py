"""The Surgeon: a genetic algorithm that trains and operates in turn (paper, Algorithm 1)."""
