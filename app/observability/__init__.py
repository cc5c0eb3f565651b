"""Logs, timings, metrics and traces."""
