"""HOW units are scored and cut: one method, one file."""
