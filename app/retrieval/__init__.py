"""What several rooms need of retrieval."""
