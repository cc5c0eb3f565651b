"""Whether a passage talks to the model that reads it. Pure."""

SUSPECTED_INJECTION = "suspected_injection"


def is_suspicious(text: str) -> bool:
    """Whether the text holds instructions to whoever ranks it, fake turns, fake replies, or begs."""
    return False
