"""Structured noise as a regularizer for Flax models."""
