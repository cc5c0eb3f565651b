"""Opening the formats that are a zip of XML files, without trusting a byte of them."""

import io
import zipfile
import zlib
from collections.abc import Iterator

from lxml import etree

from indexing.errors import UnreadableDocument
from indexing.readers.limits import ReadLimits

_ENTRIES = 20_000


class Package:
    """A zip whose members may be read one by one, within `limits`.

    Raises UnreadableDocument: "corrupt", "zip_bomb" or "password".
    """

    def __init__(self, data: bytes, limits: ReadLimits) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as exc:
            raise corrupt("Its zip container is truncated or damaged.") from exc
        self._limits = limits
        self._left = limits.max_expanded_bytes
        self._members = {info.filename.replace("\\", "/").removeprefix("/"): info for info in self._zip.infolist()}
        self._spellings = {name.casefold(): name for name in reversed(self._members)}
        self._refuse_bomb(len(data))

    def _refuse_bomb(self, packed: int) -> None:
        expanded = sum(info.file_size for info in self._members.values())
        # Small files may compress extremely well and do no harm.
        ratio_allowed = max(packed * self._limits.max_ratio, 16 * 2**20)
        if len(self._members) > _ENTRIES or expanded > min(self._left, ratio_allowed):
            raise bomb()

    @property
    def left(self) -> int:
        """Bytes that may still be unpacked."""
        return self._left

    def names(self) -> list[str]:
        """All member names, in the order of the zip."""
        return list(self._members)

    def __contains__(self, name: str) -> bool:
        return name.casefold() in self._spellings

    def _info(self, name: str) -> zipfile.ZipInfo:
        """Programs that know no case write references in another one than the names, and back slashes for slashes."""
        return self._members[name if name in self._members else self._spellings[name.casefold()]]

    def read(self, name: str) -> bytes:
        """One member's bytes. A zip can declare false sizes, so the bytes are counted as well."""
        if name not in self:
            raise corrupt(f"Its part {name!r} is missing.")
        info = self._info(name)
        if info.flag_bits & 1:
            raise UnreadableDocument("password", "It is encrypted; save it without a password and index it again.")
        try:
            with self._zip.open(info) as member:
                data = member.read(self._left + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as exc:
            raise corrupt(f"Its part {name!r} is damaged.") from exc
        if len(data) > self._left:
            raise bomb()
        self._left -= len(data)
        return data

    def xml(self, name: str) -> etree._Element:
        """One member as XML."""
        return parse_xml(self.read(name))

    def xml_or_none(self, name: str) -> etree._Element | None:
        """One member as XML; None if it is missing or broken: for optional parts."""
        try:
            return self.xml(name) if name in self else None
        except UnreadableDocument:
            return None


def parse_xml(data: bytes) -> etree._Element:
    """The root element. Entities are not expanded (a few bytes can become gigabytes), and nothing is fetched."""
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as exc:
        raise corrupt("Its XML is truncated or damaged.") from exc
    if root is None:
        raise corrupt("Its XML is empty.")
    return root


def tags(names: str) -> frozenset[str]:
    """A set of tag names, written with spaces between them."""
    return frozenset(names.split())


def local(element: etree._Element) -> str:
    """The tag without its namespace; "" for entities and the like."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: etree._Element, name: str) -> str | None:
    """The attribute of that local name, whatever its namespace."""
    plain = element.get(name)
    if plain is not None:
        return plain
    for key, value in element.attrib.items():
        if str(key).endswith("}" + name):
            return str(value)
    return None


def child(element: etree._Element, *path: str) -> etree._Element | None:
    """The first descendant reached by local names, one level each."""
    current: etree._Element | None = element
    for name in path:
        if current is None:
            return None
        current = next((inner for inner in current if local(inner) == name), None)
    return current


def descendants(element: etree._Element, *names: str) -> Iterator[etree._Element]:
    """All descendants with one of the local names, in document order."""
    return element.iter(*(f"{{*}}{name}" for name in names))


def relationships(package: Package, part: str) -> dict[str, tuple[str, str]]:
    """Id -> (kind, member name) of an Office part; external targets are left out."""
    folder, _, name = part.rpartition("/")
    root = package.xml_or_none(f"{folder}/_rels/{name}.rels" if folder else f"_rels/{name}.rels")
    if root is None:
        return {}
    return {
        relation.get("Id", ""): (
            relation.get("Type", "").rpartition("/")[2],
            resolve(folder, relation.get("Target", "")),
        )
        for relation in root
        if local(relation) == "Relationship" and relation.get("TargetMode") != "External"
    }


def resolve(folder: str, target: str) -> str:
    """A zip member name for a relative reference."""
    steps = [] if target.startswith("/") else folder.split("/")
    for step in target.split("/"):
        if step == "..":
            steps = steps[:-1]
        elif step not in ("", "."):
            steps.append(step)
    return "/".join(step for step in steps if step)


def core_properties(package: Package) -> dict[str, str]:
    """Title, author, created, modified and language of an Office document, where given."""
    root = package.xml_or_none("docProps/core.xml")
    names = {"title": "title", "creator": "author", "created": "created", "modified": "modified", "language": "lang"}
    properties: dict[str, str] = {}
    for element in root if root is not None else ():
        if (name := names.get(local(element))) and element.text and element.text.strip():
            properties[name] = element.text.strip()
    return properties


def corrupt(detail: str) -> UnreadableDocument:
    """The refusal of a damaged file."""
    return UnreadableDocument("corrupt", f"The file is damaged or incomplete. {detail}")


def bomb() -> UnreadableDocument:
    return UnreadableDocument(
        "zip_bomb",
        "It unpacks to far more data than its size allows for; raise [reading] max_expanded_bytes and max_ratio if you "
        "trust it.",
    )
