"""Text of answers made safe to show, and citations cut from passages. Pure.

What a model writes loses its thoughts, live images, HTML tags, and links to addresses that no passage holds.
"""

import re
from collections.abc import Sequence

from app.answering.models import Source
from app.domain import Citation, Hit
from indexing.documents import Span

REMOVED = "<…>"
"""Replaces an address, so that the text around it does not become one word."""

_BODY = r"[!#-;=?-Z\\^_a-z{|}~]"
"""The characters of an address: visible ASCII without quotes, angle and square brackets."""

# Whatever can match from the middle of a run is bounded: else one long word takes quadratic time.
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
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:|//|www\d{0,9}\.", re.IGNORECASE)
_LINKABLE = re.compile(r"(?:https?://|www\d{0,9}\.|mailto:)[^\W_]", re.IGNORECASE)
_PUNCTUATION = ".,;:!?'*_~|)}"
"""Belongs to the sentence rather than to the address before it."""


class LinkFilter:
    """Removes live images, tags, and addresses that no passage holds, from a text that arrives in pieces.

    The output depends on the whole text, never on how it was cut. `removed` counts the addresses.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        hits = [source.hit for source in sources]
        texts = (text for hit in hits for text in (hit.text or "", hit.title, *hit.heading, hit.source))
        self._sources = "\n".join(texts).casefold()
        self._held = ""
        self.removed = 0

    def feed(self, text: str) -> str:
        """Take the next piece; return what no later piece can change."""
        text, self._held = self._held + text, ""
        certain, position = [], 0
        for match in _SO_FAR.finditer(text):
            certain.append(text[position : match.start()])
            if match["undecided"]:
                self._held = match[0]
            else:
                certain.append(self._replacement(match))
            position = match.end()
        return "".join([*certain, text[position:]])

    def finish(self) -> str:
        """Return the rest, at the end of the text."""
        held, self._held = self._held, ""
        return _ALL.sub(self._replacement, held)

    def _replacement(self, match: re.Match[str]) -> str:
        following = match.string[match.end() : match.end() + 1]
        if match["image"]:
            return ""
        if match["tag"]:
            return "< "
        if match["open"]:
            return "] "
        if match["target"] is not None:
            return self._link(match["target"]) + (" " if following == "(" else "")
        return self._bare_address(match["address"], following)

    def _link(self, target: str) -> str:
        """The end of a Markdown link, from its closing bracket on."""
        address = _TARGET.findall(target)[0]
        if self._is_in_sources(address):
            return f"]({address})"
        if not _ABSOLUTE.match(address):
            return f"] ({_ALL.sub(self._replacement, target)})"
        self.removed += 1
        return "]"

    def _bare_address(self, text: str, following: str) -> str:
        address = text.rstrip(_PUNCTUATION)
        punctuation = text[len(address) :]
        # A letter of another script right after it would make it another address.
        if self._is_in_sources(text + following * following.isalnum()):
            return text
        if punctuation and self._is_in_sources(address):
            return text
        self.removed += 1
        return REMOVED + punctuation

    def _is_in_sources(self, address: str) -> bool:
        return bool(_LINKABLE.match(address)) and address.casefold() in self._sources


_THOUGHTS = ("<think>", "<thinking>")
LABEL = re.compile(
    r"(?:\*\*)?(?:(?:the )?(?:answer|passage)(?: is)?|antwort|réponse|respuesta|答案|回答|答え|الإجابة)"
    r"(?:\*\*)?\s?[:：](?:\*\*)?",
    re.IGNORECASE,
)
"""What small models write before an answer, and before each passage that they copy."""
_MAX_LABEL = 24
"""Characters of the longest label; until then it is not known whether there is one."""


class PreambleFilter:
    """Removes a block of thoughts and a label ("Answer:") from the beginning of a text that arrives in pieces."""

    def __init__(self) -> None:
        self._held: str | None = ""  # None once the answer has begun
        self._end_tag = ""  # of the thoughts that are open

    def feed(self, text: str) -> str:
        """Take the next piece; return what belongs to the answer."""
        if self._held is None:
            return text
        self._held += text
        while (self._end_tag or self._enter_thoughts()) and self._leave_thoughts():
            pass
        if self._end_tag or len(self._held.lstrip()) < _MAX_LABEL:
            return ""
        return self.finish()

    def finish(self) -> str:
        """Return what was held back, at the end of the text. Thoughts without an end are no answer."""
        held, self._held = (self._held or ""), None
        if self._end_tag:
            return ""
        held = held.lstrip()
        label = LABEL.match(held)
        return held[label.end() :] if label else held

    def _enter_thoughts(self) -> bool:
        begun = (self._held or "").lstrip().lower()
        tag = next((tag for tag in _THOUGHTS if begun.startswith(tag)), "")
        self._end_tag = f"</{tag[1:]}" if tag else ""
        return bool(tag)

    def _leave_thoughts(self) -> bool:
        thoughts, end, answer = (self._held or "").partition(self._end_tag)
        if not end:
            self._held = thoughts[-len(self._end_tag) :]  # the tag may have begun
            return False
        self._held, self._end_tag = answer, ""
        return True


def without_images(text: str) -> str:
    """A passage's text without live images and tags; it keeps its addresses."""
    return _QUOTED.sub(lambda match: "" if match[0].startswith("!") else "< ", text)


_JOINERS = r"[\s\u200c\u200d\ufe0f]*"
_BRACKET = re.compile(r"[\[［【〔]")
_FOOTNOTE = re.compile(rf"\s?[\[［【〔]{_JOINERS}\d{{1,3}}(?:\s?[,;–-]\s?\d{{1,3}})*{_JOINERS}[\]］】〕]")
_MARKER = re.compile(rf"[\[［【〔]{_JOINERS}(\d[\d\s,;–-]*){_JOINERS}[\]］】〕]")
INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
STOPS = ".!?。！？؟।…"


def readable(sentence: str) -> str:
    """A passage's sentence on one line, without footnote numbers, invisible characters, images, tags and markers."""
    text = " ".join(INVISIBLE.sub("", sentence).split())
    if _BRACKET.search(text):
        while (shorter := _FOOTNOTE.sub("", text)) != text:
            text = shorter
        text = _MARKER.sub(r"(\1)", text)
    return without_images(text).strip()


def citation_of(marker: int, hit: Hit, cited: Span, stated: Span, *, verified: bool = True) -> Citation:
    """A citation that quotes the passage. `cited` are offsets in the passage's text, `stated` in the answer's.

    Its pages are those of the passage; `app.services.answer` replaces them by those of the quote.
    """
    return Citation(
        marker=marker,
        result_id=hit.id,
        document_id=hit.document_id,
        source=hit.source,
        page=hit.page,
        page_end=hit.page_end,
        start=hit.start + cited.start,
        end=hit.start + cited.end,
        quote=(hit.text or "")[cited.start : cited.end],
        answer_start=stated.start,
        answer_end=stated.end,
        verified=verified,
    )
