"""The reranker: a graded pass, then a duel window (see `reranker`)."""
