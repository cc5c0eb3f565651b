"""Where a citation leads: OpenAI's `url_citation`, as Open WebUI shows it."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlsplit

from app.api.request import BodyRequest
from app.config.settings import Settings
from app.domain import Citation, Hit

MAX_QUOTED = 200
_WORDS_EACH_END = 5


def base_of(request: BodyRequest, settings: Settings) -> str:
    """The base URL of links: the configured public one, or else that of the request."""
    return (settings.service.public_url or str(request.base_url)).rstrip("/")


class Links:
    """Links to the passages of one collection. `base` is this service's address, without a slash at its end."""

    def __init__(self, base: str, collection: str) -> None:
        self._base, self._collection = base, collection
        self._hits: dict[str, Hit] = {}

    def learn(self, hits: Iterable[Hit]) -> None:
        """Remember the passages that citations may name."""
        self._hits.update({hit.id: hit for hit in hits})

    def document(self, document_id: str, start: int, end: int, tenant: str = "") -> str:
        """The page of a document in this service, with [start, end) of its text marked. `tenant`: whose it is."""
        place = f"{self._base}/documents/{quote(document_id, safe='')}?collection={quote(self._collection, safe='')}"
        place += f"&tenant={quote(tenant, safe='')}" if tenant else ""
        return f"{place}&quote={start},{end}#char={start},{end}"

    def annotation(self, citation: Citation) -> dict[str, Any]:
        """[start_index, end_index) is the sentence that the citation belongs to."""
        where = {
            "url": self._url(citation),
            "title": self._title(citation),
            "start_index": citation.answer_start,
            "end_index": citation.answer_end,
        }
        return {"type": "url_citation", "url_citation": where}

    def _url(self, citation: Citation) -> str:
        """A web page's own URL, which browsers open at the quote; else that of the document's page in this service.

        Each quote has its own URL: Open WebUI takes one URL for one source, and would count wrongly.
        """
        if is_web(citation.source):
            joint = ":~:" if "#" in citation.source else "#:~:"
            return f"{citation.source}{joint}text={_fragment(citation.quote)}"
        hit = self._hits.get(citation.result_id)
        return self.document(citation.document_id, citation.start, citation.end, (hit and hit.tenant) or "")

    def _title(self, citation: Citation) -> str:
        hit = self._hits.get(citation.result_id)
        name = (hit.title if hit else "") or citation.source or citation.document_id
        return name if citation.page is None else f"{name}, p. {citation.page}"


def is_web(source: str) -> bool:
    """Whether the source is a URL that browsers can open."""
    try:
        parts = urlsplit(source)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _fragment(text: str) -> str:
    """A text directive (WICG's scroll-to-text): all of a short quote, both ends of a long one."""
    words = text.split()
    whole = " ".join(words)
    if len(whole) <= MAX_QUOTED:
        return _escaped(whole)
    if len(words) < 2 * _WORDS_EACH_END:
        return _escaped(whole[:MAX_QUOTED])
    return f"{_escaped(' '.join(words[:_WORDS_EACH_END]))},{_escaped(' '.join(words[-_WORDS_EACH_END:]))}"


def _escaped(text: str) -> str:
    """Percent-encode also the dash, which has a meaning in a text directive, as the comma does."""
    return quote(text, safe="").replace("-", "%2D")
