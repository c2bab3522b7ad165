"""Many seeds of one training: how they run side by side, and how arms compare."""
