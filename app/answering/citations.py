"""Citations cut from passages, and text made safe to show: no images, no markup, no foreign links. Pure."""

import re
from collections.abc import Sequence

from app.answering.models import Source
from app.domain import Citation, Hit
from indexing.documents import Span

REMOVED = "<…>"
"""Stands for an address, so that what was around it does not become one word."""

_BODY = r"[!#-;=?-Z\\^_a-z{|}~]"
"""What may follow in an address: visible ASCII without quotes, angles and square brackets."""

# What can begin anywhere in a run is bounded, or begins where the run does: else one long word takes quadratic time.
_SCHEME = "[a-z][a-z0-9+.-]{0,31}"
_ADDRESS = rf"(?:{_SCHEME}://|www\d{{0,9}}\.|mailto:|xmpp:|data:(?=[a-z]{{1,31}}/|[,;])){_BODY}*"
_WITHIN = r"[^()\n]*(?:\([^()\n]*\)[^()\n]*)*"

_LIVE = (
    rf"(?P<image>(?<!!)!++(?=\[)) | (?P<tag><(?=[a-z/!?])) | \]\((?P<target>{_WITHIN})\) | (?P<open>\](?=\())"
    rf"| (?P<address>{_ADDRESS})"
)
_UNDECIDED = rf"(?<!!)!++ | [<\]] | \]\({_WITHIN}(?:\)|\([^()\n]*)? | {_ADDRESS} | {_SCHEME}(?::[a-z/]{{0,31}})?"

_ALL = re.compile(_LIVE, re.IGNORECASE | re.VERBOSE)
_SO_FAR = re.compile(rf"(?P<undecided>(?:{_UNDECIDED})\Z) | {_LIVE}", re.IGNORECASE | re.VERBOSE)
_QUOTED = re.compile(r"(?<!!)!++(?=\[)|<(?=[A-Za-z/!?])")
_TARGET = re.compile(r"\s*<?([^\s<>]*)")
_LEADS_AWAY = re.compile(r"[a-z][a-z0-9+.-]*:|//|www\d{0,9}\.", re.IGNORECASE)
_MAY_BE_LINKED = re.compile(r"(?:https?://|www\d{0,9}\.|mailto:)[^\W_]", re.IGNORECASE)
_AFTER = ".,;:!?'*_~|)}"
"""Belongs to the sentence rather than to the address before it."""


class Unlinked:
    """Takes a text in pieces and hands it on without live images, tags, and addresses that no passage has.

    What is handed on depends on the text alone, never on the pieces. `removed` counts the addresses.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        hits = [source.hit for source in sources]
        shown = (part for hit in hits for part in (hit.text or "", hit.title, *hit.heading, hit.source))
        self._shown = "\n".join(shown).casefold()
        self._held = ""
        self.removed = 0

    def feed(self, text: str) -> str:
        """What is certain now."""
        held, self._held = self._held + text, ""
        certain, at = [], 0
        for found in _SO_FAR.finditer(held):
            certain.append(held[at : found.start()])
            if found["undecided"]:
                self._held = found[0]
            else:
                certain.append(self._instead(found))
            at = found.end()
        return "".join([*certain, held[at:]])

    def finish(self) -> str:
        """The rest, when nothing more comes."""
        held, self._held = self._held, ""
        return _ALL.sub(self._instead, held)

    def _instead(self, found: re.Match[str]) -> str:
        following = found.string[found.end() : found.end() + 1]
        if found["image"]:
            return ""
        if found["tag"]:
            return "< "
        if found["open"]:
            return "] "
        if found["target"] is not None:
            return self._linked(found["target"]) + (" " if following == "(" else "")
        return self._bare(found["address"], following)

    def _linked(self, target: str) -> str:
        """The end of a Markdown link, from its closing bracket on."""
        address = _TARGET.findall(target)[0]
        if self._is_shown(address):
            return f"]({address})"
        if not _LEADS_AWAY.match(address):
            return f"] ({_ALL.sub(self._instead, target)})"
        self.removed += 1
        return "]"

    def _bare(self, written: str, following: str) -> str:
        address = written.rstrip(_AFTER)
        after = written[len(address) :]
        # A letter of another script behind it would make it another address.
        if self._is_shown(written + following * following.isalnum()) or (after and self._is_shown(address)):
            return written
        self.removed += 1
        return REMOVED + after

    def _is_shown(self, address: str) -> bool:
        return bool(_MAY_BE_LINKED.match(address)) and address.casefold() in self._shown


def without_images(text: str) -> str:
    """A text of a passage as it may be shown: nothing of it is loaded or run. Its addresses are its own."""
    return _QUOTED.sub(lambda found: "" if found[0].startswith("!") else "< ", text)


_JOINERS = r"[\s\u200c\u200d\ufe0f]*"
_FOOTNOTE = re.compile(rf"\s?[\[［【〔]{_JOINERS}\d{{1,3}}(?:\s?[,;–-]\s?\d{{1,3}})*{_JOINERS}[\]］】〕]")
_MARKER = re.compile(rf"[\[［【〔]{_JOINERS}(\d[\d\s,;–-]*){_JOINERS}[\]］】〕]")
INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
STOPS = ".!?。！？؟।…"


def readable(sentence: str) -> str:
    """The sentence on one line, without footnote numbers, invisible characters, images, tags and look-alike markers."""
    text = " ".join(INVISIBLE.sub("", sentence).split())
    while (shorter := _FOOTNOTE.sub("", text)) != text:
        text = shorter
    return without_images(_MARKER.sub(r"(\1)", text)).strip()


def citation_of(marker: int, hit: Hit, cited: Span, stated: Span) -> Citation:
    """`cited` are offsets in the passage's text, `stated` in the answer's. The quote is cut from the passage.

    Its page is the passage's: writers know no other, and `app.services.answer` sets the quote's.
    """
    return Citation(
        marker=marker,
        result_id=hit.id,
        document_id=hit.document_id,
        source=hit.source,
        page=hit.page,
        start=hit.start + cited.start,
        end=hit.start + cited.end,
        quote=(hit.text or "")[cited.start : cited.end],
        answer_start=stated.start,
        answer_end=stated.end,
    )
