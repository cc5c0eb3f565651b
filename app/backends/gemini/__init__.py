"""Gemini through Google's SDK.

adapter   the backend: its calls, and the connection they go over
messages  requests as the SDK wants them, replies as the ports want them
errors    the one seam for what can go wrong there
"""

from app.backends.gemini.adapter import GeminiAdapter, open_gemini

__all__ = ["GeminiAdapter", "open_gemini"]
