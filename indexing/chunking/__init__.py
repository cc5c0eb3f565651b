"""Documents to passages with exact offsets. Pure."""
