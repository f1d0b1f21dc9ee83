"""Config stores, beyond what all of them do."""
