"""Evidence: repeated training of one model on one task."""
