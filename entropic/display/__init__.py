"""Plain values in; text, frames and progress out."""
