"""Bytes -> text when the encoding is not known for certain."""

import codecs
import re

from charset_normalizer import from_bytes

from indexing.errors import UnreadableDocument

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What is labelled with the left name is in practice encoded with its superset on the right (WHATWG Encoding).
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-9": "cp1254",
}
_SEVEN_BIT = frozenset({"iso2022_jp", "iso2022_kr", "hz"})
_GUESSES = ("cp932", "gb18030", "euc_jp", "big5", "cp949", "cp1251", "cp1250", "cp1253", "cp1255", "cp1256", "cp1252")
_WESTERN_LETTERS = frozenset("àâãèêëîïñôùåæœø¿¡ÀÈÊÑÅÆØ")
_CENTRAL_LETTERS = frozenset("ěřůčťďňłąęśźżćńőűľĺŕşţăĚŘČŤĎŁŚŹŻ")
_SAMPLE_BYTES = 32 * 1024
_CONTROLS = bytes(set(range(32)) - {8, 9, 10, 12, 13, 27}) + b"\x7f"
_MULTIBYTE = re.compile(rb"[\xc2-\xf4][\x80-\xbf]+")


def decode(data: bytes, declared: str | None = None) -> str:
    """The text without its byte order mark; line ends stay as they are.

    `declared` is what the file or its envelope claims; it loses against a byte order mark and against valid UTF-8.
    Raises UnreadableDocument("binary") for what is not text in any encoding.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    claimed = known_encoding(declared)
    if claimed in _SEVEN_BIT and b"\x1b" in data:
        return data.decode(claimed, "replace")
    if (wide := _utf16_without_mark(data)) is not None:
        return wide
    refuse_binary(data)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        cut_short = error.start >= len(data) - 3 and any(byte >= 0x80 for byte in data[: error.start])
        return data.decode("utf-8", "replace") if cut_short else _decode_legacy(data, claimed)


def known_encoding(name: str | None) -> str | None:
    """Python's name of the encoding that a label means in practice; None for an unknown label."""
    try:
        codec = codecs.lookup(name.strip()) if name and name.isascii() else None
    except (LookupError, ValueError):
        return None
    # Codecs such as "hex" or "zlib" turn bytes into bytes: they are no character encodings.
    if codec is None or not getattr(codec, "_is_text_encoding", True) or codec.name in ("idna", "punycode"):
        return None
    return _SUPERSETS.get(codec.name, codec.name)


def looks_binary(data: bytes) -> bool:
    """True for bytes that no text file contains: NULs, or more than a stray control character."""
    sample = data[: 4 * _SAMPLE_BYTES]
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    return b"\0" in sample[:1024] or controls > max(2, len(sample) // 200)


def refuse_binary(data: bytes) -> None:
    """Raises UnreadableDocument("binary") where `looks_binary`."""
    if looks_binary(data):
        raise UnreadableDocument("binary", "It is binary data: neither text nor a supported document format.")


def _utf16_without_mark(data: bytes) -> str | None:
    """Mostly Latin text in UTF-16 is recognised by its bytes: every other one is NUL."""
    sample = data[:2048]
    if len(sample) < 4 or len(data) % 2:
        return None
    even, odd = sample[0::2], sample[1::2]
    for encoding, low, high in (("utf-16-le", even, odd), ("utf-16-be", odd, even)):
        if high.count(0) > len(high) * 0.4 and low.count(0) < len(low) * 0.05:
            text = data.decode(encoding, "replace")
            return None if looks_binary(text.encode()) else text
    return None


def _decode_legacy(data: bytes, claimed: str | None) -> str:
    if claimed and not claimed.startswith(("utf", "base64")):
        try:
            return data.decode(claimed)
        except (UnicodeError, ValueError):
            pass
    repaired = data.decode("utf-8", "replace")
    if repaired.count("\ufffd") * 10 <= len(_MULTIBYTE.findall(data)):
        return repaired
    return data.decode(_guess(data), "replace")


def _guess(data: bytes) -> str:
    sample = data[:_SAMPLE_BYTES]
    best = from_bytes(sample, cp_isolation=list(_GUESSES), enable_fallback=False).best()
    if best is None:
        return "cp1252"
    return _western_or_central(sample) if best.encoding == "cp1250" else best.encoding


def _western_or_central(sample: bytes) -> str:
    """The two Windows code pages of Latin Europe read each other's letters: count the plausible ones."""
    western, central = sample.decode("cp1252", "replace"), sample.decode("cp1250", "replace")
    differing = [(w, c) for w, c in zip(western, central, strict=True) if w != c]
    votes_western = sum(w in _WESTERN_LETTERS for w, _ in differing)
    votes_central = sum(c in _CENTRAL_LETTERS for _, c in differing)
    return "cp1250" if votes_central > votes_western else "cp1252"
