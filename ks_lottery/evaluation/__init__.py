"""Is it a winning ticket? Generated translations, their scores with intervals, and agreement with the probe."""
