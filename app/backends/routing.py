"""Which backend serves a request, and which one takes over when it fails."""
