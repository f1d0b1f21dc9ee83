"""Which row is this, and back: the user's model, its typed parameters and its records."""
