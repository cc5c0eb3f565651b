"""What of a web page is not its content: menus, banners, dialogs, hidden parts.

A name in a class or an id is a hint, never proof: "with-sidebar" is the page beside a sidebar, "menu" may be a
restaurant's. So each rule also asks how much text an element holds and how much of it is links; that is counted once.
"""

import re
from itertools import islice
from typing import Any

import msgspec
from lxml import etree

from indexing.readers.zip_xml import tags

NEVER_CONTENT = tags(
    "script style svg canvas iframe object embed applet map select option datalist input textarea audio video head "
    "link meta title"
)
_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "menu", "menubar", "dialog", "alertdialog"})
_EXEMPT = tags("body main article h1 td th tr tbody math")
_KINDS = {"nav": "frame", "header": "frame", "footer": "frame", "dialog": "frame", "template": "hidden"}
_SURE = re.compile(
    r"cookies?-?(banner|consent|notice|bar|law|popup|modal|wall|message)|(gdpr|consent)-?(banner|notice|bar|popup|modal)|"
    r"breadcrumbs?|site-?(header|footer)|skip-?(link|nav)|share-?(bar|buttons?)|social-?(links|share|media|icons)|advert(s|isement)?|"
    r"ads|pagination|noprint|catlinks|printfooter|mw-(editsection|jump-link)|vector-(header|menu|dropdown|toc|column)\S*",
    re.IGNORECASE,
)
_LISTS = re.compile(
    r"(?<![a-z])(nav(bar|igation|box)?|(drop|sub)?menu|sidebar|toc|related(-?posts)?|social|pagination)(?![a-z])", re.I
)
_BOXES = re.compile(r"(?<![a-z])(cookies?|consent|gdpr|newsletter|popup|modal)(?![a-z])", re.IGNORECASE)
_BOX_CHARACTERS = 600
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_EXCUSE = re.compile(r"java\s?script|browser|cookies", re.IGNORECASE)
_FALLBACK_CHARACTERS = 40
_CONTROLS = tags("button input")
_POINTERS = ("aria-controls", "data-target", "data-bs-target", "href")


class _Extent(msgspec.Struct):
    """Characters of text inside an element, how many of them are in links, and what else decides."""

    kind: str
    text: int = 0
    links: int = 0
    has_title: bool = False
    asks: bool = False


class Furniture:
    """The parts of one page that are to be passed over. Counting is linear in the page."""

    def __init__(self, body: Any) -> None:
        self._found: dict[Any, _Extent] = {}
        self._shown_by_control: set[str] = set()
        self._page = self._count(body)

    def _count(self, body: Any) -> _Extent:
        """Fill in `_found`; the extent of the page."""
        page = _Extent("")
        open_ones: list[tuple[Any, _Extent]] = [(body, page)]
        link_depth = 0
        walk = etree.iterwalk(body, events=("start", "end"))
        for event, element in walk:
            tag = element.tag if isinstance(element.tag, str) else ""
            is_link = tag in ("a", "button")
            if event == "end":
                link_depth -= is_link
                if len(open_ones) > 1 and open_ones[-1][0] is element:
                    _merge(open_ones[-2][1], open_ones.pop()[1])
                if element is not body:
                    _add(open_ones[-1][1], element.tail, link_depth)
                continue
            link_depth += is_link
            if (kind := _kind(element, tag)) and element is not body:
                extent = self._found[element] = _Extent(kind)
                open_ones.append((element, extent))
            if is_link or tag in _CONTROLS:
                self._shown_by_control.update((element.get(name) or "").lstrip("#") for name in _POINTERS)
                open_ones[-1][1].asks |= tag in _CONTROLS
            if tag in NEVER_CONTENT:
                walk.skip_subtree()
            elif tag:
                open_ones[-1][1].has_title |= tag == "h1"
                _add(open_ones[-1][1], element.text, link_depth)
        self._shown_by_control.discard("")
        return page

    def covers(self, element: Any, *, in_content: bool, strict: bool) -> bool:
        """Whether the element is to be passed over. `strict`: by its names and its place too, not only when hidden."""
        extent = self._found.get(element)
        if extent is None:
            return False
        prose, page_prose = extent.text - extent.links, self._page.text - self._page.links
        holds_the_page = prose * 2 > page_prose
        match extent.kind:
            case "fallback":
                return extent.text < _FALLBACK_CHARACTERS or _excuses_itself(element)
            case "hidden":
                shown_later = element.get("id") in self._shown_by_control and extent.links * 2 < extent.text
                return not holds_the_page and not shown_later
            case "frame":
                own_frame = element.tag in ("header", "footer") and in_content
                titled = extent.has_title and element.tag != "footer"
                return strict and not (own_frame or titled or holds_the_page)
            case "sure":
                return strict and not extent.has_title
            case "list":
                mostly_links = extent.links * 2 >= extent.text
                return strict and mostly_links and not extent.has_title and extent.text * 2 <= self._page.text
        return strict and extent.asks and prose < _BOX_CHARACTERS and not (extent.has_title or holds_the_page)


def _kind(element: Any, tag: str) -> str:
    """Why the element may be furniture, by itself; "" for content."""
    if tag == "noscript":
        return "fallback"
    if not tag or tag in _EXEMPT or (tag == "template" and element.get("shadowrootmode") is not None):
        return "hidden" if tag and _is_hidden(element, tag) else ""
    if _is_hidden(element, tag):
        return "hidden"
    if element.get("role") in _ROLES:
        return "frame"
    if tag in _KINDS:
        return _KINDS[tag]
    names = f"{element.get('class') or ''} {element.get('id') or ''}"
    if not names.strip():
        return ""
    if any(map(_SURE.fullmatch, names.split())):
        return "sure"
    if _LISTS.search(names):
        return "list"
    return "box" if _BOXES.search(names) else ""


def _is_hidden(element: Any, tag: str) -> bool:
    """The browser's search opens what is hidden "until-found": that is content."""
    if tag == "math":
        return False
    if (element.get("hidden") or "").lower() == "until-found":
        return False
    if element.get("hidden") is not None or element.get("aria-hidden") == "true":
        return True
    return bool(_HIDDEN_STYLE.search(element.get("style") or ""))


def _excuses_itself(element: Any) -> bool:
    """A page that only says what it needs to be shown."""
    return bool(_EXCUSE.search(" ".join(islice(element.itertext(), 100))))


def _add(extent: _Extent, text: str | None, link_depth: int) -> None:
    if text and (characters := len(text.strip())):
        extent.text += characters
        extent.links += characters if link_depth > 0 else 0


def _merge(outer: _Extent, inner: _Extent) -> None:
    outer.text += inner.text
    outer.links += inner.links
    outer.has_title |= inner.has_title
    outer.asks |= inner.asks


_SPOKEN_WORDS, _SPOKEN_CHARACTERS = 4, 25


def speaks(button: Any) -> bool:
    """A button that opens an answer bears a question or a whole heading; "Send" and "Copy" are furniture."""
    text = " ".join(button.itertext()).strip()
    return text.endswith(("?", "？")) or len(text.split()) >= _SPOKEN_WORDS or len(text) > _SPOKEN_CHARACTERS


_TAG = re.compile(r"""<([A-Za-z][\w:-]*+)((?:[^<>"']++|"[^"]*+"|'[^']*+')*+)>""")
_QUOTED = re.compile(r""""[^"]*+"|'[^']*+'""")
_LONG_TAG = 10_000
_ATTRIBUTES = 500


def without_storms(source: str) -> str:
    """The page with tags of hundreds of attributes bared: libxml2 takes quadratic time for them."""
    if len(source) < _LONG_TAG:
        return source

    def bared(match: re.Match[str]) -> str:
        if len(match[2]) < _LONG_TAG or len(_QUOTED.sub("", match[2]).split()) < _ATTRIBUTES:
            return match[0]
        return f"<{match[1]}>"

    return _TAG.sub(bared, source)
