"""Keys, typed JSON and files of values. No SQL."""
