"""Constructions whose answer is known: subset sums, strong tickets with the widths that theorems ask for, planted tasks."""
