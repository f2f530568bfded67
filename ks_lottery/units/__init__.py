"""WHAT can be chosen: units of a model, described by slabs of its parameters."""
