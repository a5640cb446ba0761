"""What ``tools/benchmark.py`` measures, and how; ``serve`` is the side that runs in every environment."""
