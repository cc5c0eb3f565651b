"""Open WebUI's document loader, web search and background tasks."""
