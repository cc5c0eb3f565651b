"""vLLM, Ollama and every other server that speaks OpenAI's protocol, through OpenAI's SDK.

`wire` is the one way to the server, `errors` the one seam for what can go wrong there, `bodies` and `replies` say what
goes over it, `probing` finds out what the server is and can do, `scoring` reads log-probabilities, and `adapter` is
the backend.
"""

from app.backends.openai_compatible.adapter import OpenAICompatible, open_openai_compatible

__all__ = ["OpenAICompatible", "open_openai_compatible"]
