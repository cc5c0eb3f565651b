"""Logging and timing."""
