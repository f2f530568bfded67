"""Finders whose evidence is a live model and some batches of its task."""
