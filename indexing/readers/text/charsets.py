"""Which encoding some bytes are in, by the letters of the languages that use it.

A guess is right for a few words of a language in the tables. It stays a guess: the reader warns of it.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache

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


def guess(sample: bytes) -> str:
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
