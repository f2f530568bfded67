"""A report as one HTML file that needs no network: its text, pictures with notes, heat maps, texts side by side."""
