"""WHICH units were chosen: the ticket, a value that is also a file."""
