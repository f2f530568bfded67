"""The parts of a comparison of finders: its plan, its store, finding, training, and its workers."""
