"""Passages that try to give the model orders."""
