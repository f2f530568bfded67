"""WHERE weights come from: a live model, a folder or a Hub repository, one piece of one tensor at a time."""
