"""What the tools that measure trained networks made smaller have in common."""
