"""What people look at: tables, pictures, results as data."""
