"""Sources to an up-to-date index: plan, read, chunk, embed, write."""
