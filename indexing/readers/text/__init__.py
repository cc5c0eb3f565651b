"""Plain text, Markdown, HTML, mail and tabular text."""
