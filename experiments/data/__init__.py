"""Datasets as arrays, and the augmentation of their images."""
