"""Languages, terms and stop words of texts, and text made safe for prompts."""
