"""A function becomes a table: its signature the model, its calls the rows, its values the files."""
