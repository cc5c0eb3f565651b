"""Endpoints in the shapes of other products, over the same use cases as our own."""
