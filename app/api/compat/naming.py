"""What foreign clients type where they mean one of our collections: its name, or `collection@backend`."""

from typing import NamedTuple


class Target(NamedTuple):
    """A collection, and who ranks what is found there; None: the settings' default."""

    collection: str
    backend: str | None = None


def target_of(name: str) -> Target:
    """`handbook@gemma` ranks with gemma. No collection's name has an @ in it."""
    collection, _, backend = name.strip().partition("@")
    return Target(collection, backend or None)
