"""Finders whose evidence is two checkpoints: before and after the probe."""
