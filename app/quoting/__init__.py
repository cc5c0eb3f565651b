"""Texts of strangers, made fit to stand in a prompt: no control tokens, and a fence around them."""
