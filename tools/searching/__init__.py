"""Searches for networks that compare_search.py sets against each other."""
