"""vLLM, Ollama and every other server that speaks OpenAI's protocol, through OpenAI's SDK."""
