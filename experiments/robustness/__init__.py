"""Corrupted images, and how networks answer to them."""
