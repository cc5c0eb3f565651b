"""Whether quotations support a claim, judged by what both hold. Pure."""

from collections.abc import Sequence

import msgspec

from app.answering.terms import terms


class Evidence(msgspec.Struct, frozen=True):
    """A quotation, and the title and headings above it."""

    quote: str
    about: str = ""


def verify(claim: str, evidence: Sequence[Evidence]) -> tuple[bool, ...]:
    """For each piece of evidence, whether it helps to support the claim, which all of them together do."""
    return tuple(bool(terms(claim) & terms(one.quote)) for one in evidence)
