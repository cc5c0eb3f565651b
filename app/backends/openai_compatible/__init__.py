"""vLLM, Ollama and every other server that speaks OpenAI's protocol, through OpenAI's SDK.

adapter   the backend: its calls
messages  request bodies and replies
probing   finds out what the server is and can do
scoring   log-probabilities of labels
wire      the one way to the server
errors    the one seam for what can go wrong there
"""

from app.backends.openai_compatible.adapter import OpenAICompatible, open_openai_compatible

__all__ = ["OpenAICompatible", "open_openai_compatible"]
