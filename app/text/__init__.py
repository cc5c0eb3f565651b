"""Text that questions, passages and prompts are made of: languages, terms, fences."""
