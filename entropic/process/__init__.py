"""Who runs, with what code, how it ends, and how it waits."""
