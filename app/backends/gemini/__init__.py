"""Gemini through Google's SDK.

adapter   the calls
requests  what we ask, as the SDK wants it
replies   what it answers, as the ports want it
troubles  what goes wrong, as our errors
models    what the models differ in
"""

from app.backends.gemini.adapter import GeminiAdapter, open_gemini

__all__ = ["GeminiAdapter", "open_gemini"]
