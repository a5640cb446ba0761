"""The searches, which train and operate in turn.

Growing and shrinking, shrinking a trained network, and Algorithm 1.
"""
