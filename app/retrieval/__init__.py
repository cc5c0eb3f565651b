"""Metadata conditions on passages, checked after retrieval."""
