"""Text as an index and JSON can carry it. Pure."""


def clean(text: str) -> str:
    """The text without what no index and no JSON can carry: NUL characters and lone surrogates. As long as before."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")
