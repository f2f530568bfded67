"""Finders that look at nothing: tickets by chance, the controls of every other one."""
