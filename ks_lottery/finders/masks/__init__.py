"""Finders whose evidence is a mask that is learnt over frozen weights."""
