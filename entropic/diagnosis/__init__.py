"""What failed, what is missing, what does not fit."""
