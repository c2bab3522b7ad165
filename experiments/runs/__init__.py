"""One run: its configuration, its checkpoints, its results."""
