"""Bytes -> text when the encoding is not known for certain.

What is neither declared nor UTF-8 is guessed by the letters of the languages that use an encoding. A guess is right for
a few words of a language in the tables. It stays a guess: the reader warns of it.
"""

import codecs
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import BinaryIO, NamedTuple

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
    "iso8859-11": "cp874",
    "tis-620": "cp874",
}
_CODE_PAGE = re.compile(r"(?:x-)?(?:windows|win|cp|ibm|dos|ms|oem)?[-_ ]?(\d{3,5})", re.IGNORECASE)
_SEVEN_BIT = frozenset({"iso2022_jp", "iso2022_kr", "hz"})
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.+=-]+)*;base64,[A-Za-z0-9+/=_%-]*+")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/\r\n])[A-Za-z0-9+/\r\n]{500,}+={0,2}")
_BASE64_MARKS = (re.compile("[0-9]"), re.compile("[a-z]"), re.compile("[A-Z]"), re.compile("[+/]"))
_BASE64_LINE = 60
_SAMPLE_BYTES = 32 * 1024
_BLOCK = 2**20
_CONTROLS = bytes(set(range(32)) - {8, 9, 10, 12, 13, 27}) + b"\x7f"
_MULTIBYTE = re.compile(rb"[\xc2-\xf4][\x80-\xbf]+")


class Decoded(NamedTuple):
    """A text, and what makes it doubtful, a sentence each."""

    text: str
    warnings: tuple[str, ...] = ()


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of `decoded`."""
    return decoded(data, declared).text


def decoded(data: bytes, declared: str | None = None) -> Decoded:
    """The text without its byte order mark and without files in base64; line ends stay as they are.

    `declared` is what the file or its envelope claims; it loses against a byte order mark and against valid UTF-8. What
    had to be guessed, or could not be read, is warned of. Raises UnreadableDocument("binary") for what is no text.
    """
    text, warnings = _decoded(data, declared)
    return Decoded(without_payloads(text), warnings)


def is_utf8(file: BinaryIO) -> bool:
    """Whether all of a file is, from its start on; read in blocks."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    file.seek(0)
    try:
        while block := file.read(_BLOCK):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def streamed_encoding(file: BinaryIO) -> tuple[str, tuple[str, ...]] | None:
    """How a large text is decoded, and what is doubtful about that; None where it has to be seen whole.

    As of `decoded`, read in blocks.
    """
    file.seek(0)
    sample = file.read(_BLOCK)
    for mark, encoding in _BOMS:
        if sample.startswith(mark):
            # The codecs without the byte order in their names read the mark.
            return ("utf-8-sig" if encoding == "utf-8" else encoding[:6]), ()
    if looks_binary(sample) or _utf16_without_mark(sample) is not None:
        return None
    lost, characters = _utf8_faults(file)
    if not lost:
        return "utf-8", ()
    if lost * 10 <= characters:
        return "utf-8", (_lost(lost, "utf-8"),)
    encoding = guess_charset(sample[:_SAMPLE_BYTES])
    return encoding, (_doubt(encoding),)


def _utf8_faults(file: BinaryIO) -> tuple[int, int]:
    """How many characters of a file are no UTF-8, and how many are and take several bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    lost = characters = 0
    file.seek(0)
    while block := file.read(_BLOCK):
        lost += decoder.decode(block).count("\ufffd") - block.count("\ufffd".encode())
        characters += len(_MULTIBYTE.findall(block))
    return max(0, lost), characters


def without_payloads(text: str) -> str:
    """Pictures and other files that are written into a text say nothing, in thousands of words."""
    text = _DATA_URL.sub(r"data:\1", text)

    def kept(run: re.Match[str]) -> str:
        lines = run[0].split()
        is_payload = len(run[0]) >= _BASE64_LINE * len(lines) and all(mark.search(run[0]) for mark in _BASE64_MARKS)
        if not is_payload:
            return run[0]
        # The line breaks around it part what was before from what comes after.
        before = run[0][: len(run[0]) - len(run[0].lstrip("\r\n"))]
        after = run[0][len(run[0].rstrip("\r\n")) :]
        return after or ("" if run.string[run.end() : run.end() + 1] in ("\r", "\n") else before)

    return _BASE64.sub(kept, text)


def _decoded(data: bytes, declared: str | None) -> Decoded:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _replaced(data[len(mark) :], encoding)
    claimed = known_encoding(declared)
    if claimed in _SEVEN_BIT and b"\x1b" in data:
        return _replaced(data, claimed)
    if (wide := _utf16_without_mark(data)) is not None:
        return Decoded(wide)
    refuse_binary(data)
    try:
        return Decoded(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        cut_short = error.start >= len(data) - 3 and any(byte >= 0x80 for byte in data[: error.start])
        return _replaced(data, "utf-8") if cut_short else _decode_legacy(data, claimed)


def _replaced(data: bytes, encoding: str) -> Decoded:
    text = data.decode(encoding, "replace")
    lost = text.count("\ufffd") - data.count("\ufffd".encode())
    if lost <= 0:
        return Decoded(text)
    return Decoded(text, (_lost(lost, encoding),))


def _lost(characters: int, encoding: str) -> str:
    count = "1 character is" if characters == 1 else f"{characters} characters are"
    return f"{count} no valid {encoding}, and {'stands' if characters == 1 else 'stand'} as \ufffd in the text."


def _doubt(encoding: str) -> str:
    return f"Its encoding is not declared and was guessed to be {encoding}; save it as UTF-8 if letters are wrong."


def known_encoding(name: str | None) -> str | None:
    """Python's name of the encoding that a label means in practice; None for an unknown label."""
    label = (name or "").strip()
    page = _CODE_PAGE.fullmatch(label)
    spellings = (label, label.lower().removeprefix("x-"), f"cp{page[1]}" if page else "")
    codec = next(filter(None, map(_codec, spellings)), None)
    return None if codec is None else _SUPERSETS.get(codec, codec)


def _codec(label: str) -> str | None:
    try:
        codec = codecs.lookup(label) if label and label.isascii() else None
    except (LookupError, ValueError):
        return None
    # Codecs such as "hex" or "zlib" turn bytes into bytes: they are no character encodings.
    if codec is None or not getattr(codec, "_is_text_encoding", True) or codec.name in ("idna", "punycode"):
        return None
    return codec.name


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


def _decode_legacy(data: bytes, claimed: str | None) -> Decoded:
    if claimed and not claimed.startswith(("utf", "base64")):
        try:
            return Decoded(data.decode(claimed))
        except (UnicodeError, ValueError):
            pass
    repaired = _replaced(data, "utf-8")
    if repaired.text.count("\ufffd") * 10 <= len(_MULTIBYTE.findall(data)):
        return repaired
    encoding = guess_charset(data[:_SAMPLE_BYTES])
    text, lost = _replaced(data, encoding)
    return Decoded(text, (_doubt(encoding), *lost))


_RUSSIAN = "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё"
_UKRAINIAN = "оанівеитрслкдупмязьгбчхйжїшюєцщфґ"
_SERBIAN = "аоеинтрсујвкдмлпгзбшчњжљћцђхфџѓќѕ"
_THAI = "านรอกเงมยลวดทส่้ตะปบคหแจพชขใไโผถซภธศญฟฉณฐษีิืัู์ุ็ำ"
# Beyond ASCII, by how often a language writes them.
_LANGUAGES: dict[str, tuple[str, ...]] = {
    "cp1252": ("äüöß", "éàèêçôîùâûëïœ", "óíáéñúü¿¡", "àèùìòé", "ãçáéíóêõâúôà", "äöåé", "øåæé", "ðíáúéóöæþý", "éëïöüè"),
    "cp1250": ("áíéěčřžýšůúťňóďü", "łęąóśżćńź", "áéőöíóüúű", "čšžćđ", "ăşţîâ", "áíéčľžšýúťňôóäďŕĺ"),
    "cp1254": ("ışüğöçâîû",),
    "cp1257": ("āīšēžķļņģūč", "ėšąžįūųęč", "äõöüšž"),
    "cp1251": (_RUSSIAN, _UKRAINIAN, _SERBIAN),
    "koi8-r": (_RUSSIAN,),
    "koi8-u": (_UKRAINIAN,),
    "cp866": (_RUSSIAN,),
    "cp1253": ("αοιετνσηρπκμλυςίόάγέδήθωχύφβξώζψϊϋ",),
    "cp1255": ("יולהרמאתבשנםדקעפחכסטןגצזךףץ",),
    "cp1256": ("اليمنوتردبعفسقحكةجشطأصهخإىذزءضغثؤئآظًٌٍَُِّْپچژگ",),
    "cp874": (_THAI + "".join(set(map(chr, [*range(0xE01, 0xE3B), *range(0xE40, 0xE4F)])) - set(_THAI)),),
    "cp850": ("äüöß", "éàèêçôîùâûëï", "óíáéñúü¿¡", "ãçáéíóêõâúôà", "äöåé", "øåæé"),
    "cp852": ("áíéěčřžýšůúťňóďü", "łęąóśżćńź", "áéőöíóüúű"),
    "mac-roman": ("äüöß", "éàèêçôîùâûëïœ", "óíáéñúü¿¡", "ãçáéíóêõâúôà", "øåæé"),
}
_RARE = {"cp1257": 0.97, "cp850": 0.9, "cp852": 0.9, "mac-roman": 0.9, "koi8-u": 0.98}
"""What an encoding counts that is seldom met without a label."""
_SIGNS = frozenset("’‘“”„–—…«»€§°²³№·•\u00a0")
_UNLIKELY = re.compile(
    "[a-zß-öø-ÿа-яёα-ω](?=[А-ЯЁÀ-ÖØ-ÞΑ-Ω])"  # a capital inside a word
    "|[^\u0e01-\u0e2e\u0e30-\u0e3a\u0e45-\u0e4e](?=[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e])"  # a Thai mark on nothing
    "|[\u0e40-\u0e44](?![\u0e01-\u0e2e])"  # a Thai vowel before nothing
    "|[A-Za-z0-9](?=[\u0370-\u0fff])|[\u0370-\u0fff](?=[A-Za-z])"  # two scripts in one word
    "|(?<=[A-Za-zÀ-ž])[”„«»§°…·](?=[A-Za-zÀ-ž])"  # a sign inside a word
)
_SYLLABLES = frozenset("이다는을의에가고하지로사기한니들어도은를과서인일자해리그시나정수대있보제아라부")
_GOOD = 0.8


def guess_charset(sample: bytes) -> str:
    """The likeliest encoding of bytes that are not UTF-8."""
    scores = {encoding: max(_fits(sample, encoding)) * _RARE.get(encoding, 1.0) for encoding in _LANGUAGES}
    asian = {encoding: score(sample) for encoding, score in _ASIAN.items()}
    scores.update((encoding, score) for encoding, score in asian.items() if score >= _GOOD)
    return max(scores, key=lambda encoding: scores[encoding])


def _fits(sample: bytes, encoding: str) -> Iterator[float]:
    """For each language how well its letters account for the characters beyond ASCII, in [0,1]."""
    text = sample.decode(encoding, "replace")
    beyond = [character for character in text if character > "\x7f" and character not in _SIGNS]
    unlikely = len(_UNLIKELY.findall(text))
    for letters in _LANGUAGES[encoding]:
        weights = _weights(letters)
        yield max(0.0, sum(weights.get(one, 0.0) for one in beyond) - 2 * unlikely) / max(1, len(beyond))


@cache
def _weights(letters: str) -> dict[str, float]:
    """1 for the most frequent letter, down to 0.6 for the rarest; capitals a little less."""
    small = {letter: 1 - 0.4 * place / len(letters) for place, letter in enumerate(letters)}
    capitals = {letter.upper(): 0.9 * weight for letter, weight in small.items() if len(letter.upper()) == 1}
    return {**capitals, **small, **({"İ": 0.9} if "ı" in small else {})}


def _share(text: str, expected: Callable[[str], bool], needed: Callable[[str], bool], least: float) -> float:
    """The share of expected characters beyond ASCII; 0 where too few are of those that every text has."""
    beyond = [character for character in text if character > "\x7f"]
    if not beyond or sum(map(needed, beyond)) < least * len(beyond):
        return 0.0
    return sum(map(expected, beyond)) / len(beyond)


def _punctuation(character: str) -> bool:
    return "\u3000" <= character <= "\u303f" or "\uff00" <= character <= "\uff5e" or character in _SIGNS


def _japanese(encoding: str) -> Callable[[bytes], float]:
    def is_kana(character: str) -> bool:
        return "\u3041" <= character <= "\u30fe"

    def expected(character: str) -> bool:
        return is_kana(character) or _punctuation(character) or _leads(character, "euc_jp", 0xB0, 0xCF)

    return lambda sample: _share(sample.decode(encoding, "replace"), expected, is_kana, 0.2)


def _leads(character: str, encoding: str, first: int, last: int) -> bool:
    """Whether the character is among the common ones, which the national standards put first."""
    encoded = character.encode(encoding, "ignore")
    return len(encoded) == 2 and first <= encoded[0] <= last


def _korean(sample: bytes) -> float:
    def expected(character: str) -> bool:
        return "\uac00" <= character <= "\ud7a3" or _punctuation(character)

    return _share(sample.decode("cp949", "replace"), expected, _SYLLABLES.__contains__, 0.2)


def _chinese(encoding: str, standard: str, last: int) -> Callable[[bytes], float]:
    first = 0xB0 if standard == "gb2312" else 0xA4

    def expected(character: str) -> bool:
        return _leads(character, standard, first, last) or _punctuation(character)

    def is_han(character: str) -> bool:
        return "\u4e00" <= character <= "\u9fff"

    return lambda sample: 0.99 * _share(sample.decode(encoding, "replace"), expected, is_han, 0.4)


_ASIAN: dict[str, Callable[[bytes], float]] = {
    "cp932": _japanese("cp932"),
    "euc_jp": _japanese("euc_jp"),
    "cp949": _korean,
    "gb18030": _chinese("gb18030", "gb2312", 0xD7),
    "big5": _chinese("big5", "big5", 0xC6),
}
