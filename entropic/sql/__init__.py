"""One engine, column types that hold everywhere, our own tables, and whether they are as this code needs them."""
