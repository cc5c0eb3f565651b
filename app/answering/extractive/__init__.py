"""Answers in the documents' own sentences, without a model."""
