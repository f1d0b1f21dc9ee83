"""The exclusive right to compute a key, for as long as its holder lives. Knows no model."""
