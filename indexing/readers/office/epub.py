"""EPUB -> text: the chapters in reading order, each read as the HTML page that it is."""

import urllib.parse
from typing import Any

from lxml import etree

from indexing.documents import Document
from indexing.errors import UnreadableDocument
from indexing.readers.builder import TextWriter
from indexing.readers.limits import ReadLimits
from indexing.readers.text.encoding import decode
from indexing.readers.text.html import declared_charset, write_html
from indexing.readers.zip_xml import Package, child, corrupt, descendants, local, resolve

_WANTED = {"title": "title", "creator": "author", "language": "lang", "date": "created", "publisher": "publisher"}


def read_epub(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document; title, author and language come from the package file."""
    package = Package(data, limits)
    container = package.xml("META-INF/container.xml")
    root_file = next((element.get("full-path", "") for element in descendants(container, "rootfile")), "")
    book = package.xml(root_file)
    if _is_protected(package):
        raise UnreadableDocument("password", "It is protected by DRM; only an unprotected copy can be indexed.")
    writer = TextWriter()
    for chapter in _spine(book, root_file):
        if chapter in package:
            page = package.read(chapter)
            write_html(decode(page, declared_charset(page)), writer)
    metadata = _metadata(book)
    title = metadata.pop("title", "")
    return [writer.document(title=title, media_type="application/epub+zip", metadata=metadata)]


def _is_protected(package: Package) -> bool:
    """Fonts may be obscured without harm; encrypted chapters are another matter."""
    encryption = package.xml_or_none("META-INF/encryption.xml")
    references = descendants(encryption, "CipherReference") if encryption is not None else ()
    return any((reference.get("URI") or "").lower().endswith(("html", "htm", "xml")) for reference in references)


def _spine(book: etree._Element, root_file: str) -> list[str]:
    """Member names of the chapters; the navigation page is none."""
    folder = root_file.rpartition("/")[0]
    manifest, spine = child(book, "manifest"), child(book, "spine")
    if manifest is None or spine is None:
        raise corrupt("It does not list its chapters.")
    pages = {
        item.get("id", ""): resolve(folder, urllib.parse.unquote(item.get("href", "")))
        for item in manifest
        if local(item) == "item" and "nav" not in (item.get("properties") or "").split()
    }
    return [pages[reference.get("idref", "")] for reference in spine if reference.get("idref", "") in pages]


def _metadata(book: etree._Element) -> dict[str, Any]:
    holder = child(book, "metadata")
    fields: dict[str, Any] = {}
    for element in holder.iter() if holder is not None else ():
        name = _WANTED.get(local(element))
        if name and name not in fields and (element.text or "").strip():
            fields[name] = (element.text or "").strip()
    return fields
