"""Constructions whose answer is known: subset sums, strong tickets, widths of theorems, planted tasks."""
