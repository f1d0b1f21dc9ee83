"""Digests, slots, names, and whose folder this is. No SQL."""
