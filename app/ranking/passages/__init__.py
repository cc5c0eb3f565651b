"""Candidates prepared for a model to read: cut, deduplicated, batched."""
