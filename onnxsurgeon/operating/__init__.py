"""Surgeries performed with the moments that they need, and the error of each found on other rows."""
