"""The mark around a stranger's text in a prompt, which the stranger cannot know. Pure but for the source of letters."""

import secrets
from collections.abc import Callable, Iterable
from string import ascii_lowercase

FENCE_LENGTH = 8
"""Letters: 2e11 marks, in some five tokens."""


def random_fence() -> str:
    """One that nobody can guess."""
    return "".join(secrets.choice(ascii_lowercase) for _ in range(FENCE_LENGTH))


def draw_fence(texts: Iterable[str], draw: Callable[[], str] = random_fence) -> str:
    """A mark that stands in none of the texts, in either case of its letters."""
    seen = "\n".join(texts).lower()
    while (fence := draw()).lower() in seen:
        pass
    return fence


def check_fence(fence: str, texts: Iterable[str]) -> None:
    """Raises ValueError where a text could close the fence: whoever draws it must look at every text."""
    if not fence or any(fence in text for text in texts):
        raise ValueError("the fence stands in a text that it should enclose")
