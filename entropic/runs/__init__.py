"""One run from claim to row, and what a crash leaves."""
