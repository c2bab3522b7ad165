"""One run: its configuration, its checkpoints, and what it leaves behind."""
