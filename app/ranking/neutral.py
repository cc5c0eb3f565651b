"""Texts of strangers without what a model's tokenizer would take for a control token. Pure."""


def neutralise(text: str) -> str:
    """The text with control tokens of every family broken up and invisible characters gone."""
    return text


def renumber(text: str) -> str:
    """The text with "[12]" as "(12)"."""
    return text
