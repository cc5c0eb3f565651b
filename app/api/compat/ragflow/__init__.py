"""RAGFlow's HTTP API: retrieval, chat, datasets."""
