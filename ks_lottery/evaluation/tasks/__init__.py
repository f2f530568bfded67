"""What finders are compared on: a model, examples to train on, and a score."""
