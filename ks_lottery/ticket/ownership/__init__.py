"""WHOSE a ticket is: marks in its mask, keys to it, trigger sets, and signatures of its file."""
