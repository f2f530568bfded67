"""The study of `recipes/study.py`: cells that are made once and kept, what they train and measure, and its page."""
