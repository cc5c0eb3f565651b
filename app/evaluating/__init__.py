"""How well a backend does on documents and questions of the user's own."""
