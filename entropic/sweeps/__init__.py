"""Many runs: what must run, the loop that keeps them in flight, what travels, and what comes back."""
