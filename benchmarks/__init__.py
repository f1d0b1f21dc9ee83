"""How far entropic is from what the same work costs without it: ratios to a baseline measured in the same run."""
