"""API keys: who is calling, what they may do, how fast and for how much, and the record of it."""
