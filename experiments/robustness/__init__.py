"""Corrupted images, and how networks classify them."""
