"""Surgeries performed with what they go by, and the error of each found on other rows."""
