"""Dense vectors of passages, queries and callers' texts."""
