"""What a learnt mask makes small: losses, and distances between the masked model and the dense one."""
