"""The reranker: a model grades candidates, and compares the best ones side by side (start at `reranker`)."""
