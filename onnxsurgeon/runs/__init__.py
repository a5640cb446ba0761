"""The files that a run leaves on disk: its directory, journal, branches and history, written and read."""
