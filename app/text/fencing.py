"""Text made safe for prompts: control tokens are broken up, quoted text is fenced. Pure, but for a process's secret."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from string import ascii_lowercase


def clean(text: str) -> str:
    """Replace NUL characters and lone surrogates, which no index or JSON can hold. The length stays the same."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")


FENCE_LENGTH = 8
"""Letters; 2e11 possible fences, of about five tokens each."""


DrawFence = Callable[[Iterable[str]], str]
"""From all texts of a prompt, a fence that occurs in none of them, in whatever case."""


def fencing(secret: str | None = None, length: int = FENCE_LENGTH) -> DrawFence:
    """Fences that nobody can guess who does not know the secret; without one it is this process's own.

    A fence is an HMAC of the texts: the same request is the same prompt, byte by byte, which a server may have in its
    cache, and a model makes the same of it.
    """
    key = secrets.token_bytes(32) if secret is None else secret.encode()

    def draw(texts: Iterable[str]) -> str:
        texts = list(texts)
        seen = "\n".join(texts).lower()
        digest = hmac.new(key, digestmod=hashlib.sha256)
        for text in texts:
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        while (fence := _letters(digest.digest(), length)) in seen:
            digest.update(b"again")
        return fence

    return draw


def _letters(digest: bytes, count: int) -> str:
    number, letters = int.from_bytes(digest, "big"), ""
    for _ in range(count):
        number, letter = divmod(number, len(ascii_lowercase))
        letters += ascii_lowercase[letter]
    return letters


draw_fence = fencing()
"""Under the secret of this process."""


_known_fence = fencing("")


def fence_of(text: str) -> str:
    """The same fence for the same text, where another process than the one that asked reads the reply.

    It occurs neither in the text nor in what a model sees of it, so that knowing it helps nobody who writes the text.
    """
    return _known_fence([text, neutralise(text)])


def check_fence(fence: str, texts: Iterable[str]) -> None:
    """Raise ValueError if a text contains the fence, and could close it. `draw_fence` avoids that."""
    if not fence or any(fence in text for text in texts):
        raise ValueError("the fence occurs in a text that it should enclose")


_NAMES = r"""
    bos | eos | pad | unk | mask | cls | sep | s | (?:bos|eos|pad|unk)_token | sys | sop | eop | eod | eot | eom
  | (?:start|end)_of_(?:turn|image|audio|video|text) | (?:image|audio|video)(?:_soft)?_token | image | audio | video
  | img | box | quad | ref | think | thinking | tool_?(?:call|calls|response|result|results) | tools?
  | fim_\w+ | file_sep | repo_name | gh_stars | empty_output | unused_?\d+ | extra_id_\d+ | reserved_?\w*\d+
  | special_?\d+ | seed:\w+ | 0x[0-9a-f]{2} | \[multimodal\]
"""
_BRACKETED = r"""
    INST | SYSTEM_PROMPT | AVAILABLE_TOOLS | TOOL_CALLS | TOOL_RESULTS | TOOL_CONTENT | CALL_ID | ARGS | THINK
  | IMG(?:_BREAK|_END)? | (?:BEGIN_)?AUDIO | TRANSCRIBE | MODEL_SETTINGS | PREFIX | SUFFIX | MIDDLE
  | [gs]?MASK | CLS | SEP | PAD | UNK | \|[^\s\[\]|]+\|
"""
_MORE = r"(?:>|&gt;|&\#0*62;|&\#x0*3e;)"
_INNER = rf"\|[^\s<>|&]+\|?{_MORE} | /?[^\s<>|&/]+\|{_MORE} | /?(?:{_NAMES}){_MORE}"

# Matches the opening bracket of Gemma's <end_of_turn> and <|turn>, Qwen's <|im_end|>, Llama's <|eot_id|> and [INST],
# Mistral's </s>, DeepSeek's <｜User｜>, MiniMax' ]~b], GLM's [gMASK], Exaone's [|user|] ..., also as HTML entities.
_CONTROL = re.compile(
    rf"""
    [<&\[\]] (?:
      (?<=<) (?={_INNER})
    | (?<=&) (?:lt|\#0*60|\#x0*3c); (?={_INNER})
    | (?<=\[) (?= /?(?:{_BRACKETED})\] | e~\[ )
    | (?<=\]) (?= ~!?[a-z]\[?\] | ~!?[a-z]\[ )
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)

# Look-alikes of the characters of control tokens; most of them are the same to a tokenizer that normalises.
_LOOKS_LIKE = (
    {chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F)}
    | dict.fromkeys("﹤‹〈〈⟨《≺˂ᐸ❮", "<")
    | dict.fromkeys("﹥›〉〉⟩》≻˃ᐳ❯", ">")
    | dict.fromkeys("【〔⟦", "[")
    | dict.fromkeys("】〕⟧", "]")
    | dict.fromkeys("∣│┃❘ǀ¦ߊ⏐", "|")
    | dict.fromkeys("▁‗＿_⎯", "_")
    | dict(zip("аеорсхуіѕԁΑΒΕΙΚΜΝΟΡΤΧοАВЕІКМНОРСТХ", "aeopcxyisdABEIKMNOPTXoABEIKMHOPCTX", strict=True))
)
_ALIKE = str.maketrans(_LOOKS_LIKE)
_DISGUISE = re.compile(f"[{''.join(_LOOKS_LIKE)}]")
_BRACKETS = "<&[]"
_ALL_BRACKETS = _BRACKETS + "".join(letter for letter, meant in _LOOKS_LIKE.items() if meant in _BRACKETS)
_OPENS = re.compile(f"[{re.escape(_ALL_BRACKETS)}]")

_MAX_TOKEN = 100
"""Characters of a control token; the longest known one, written as entities, has half of them."""

# Joiners are legitimate between letters of Arabic and Indic scripts and in emoji; variation selectors after emoji and
# Han characters.
_EMOJI = "\u00a9\u00ae\u203c-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_JOINED = f"\u0620-\u0dff\u0e00-\u109f\u1780-\u17d3{_EMOJI}"
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_ALWAYS = (
    "\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_INVISIBLE = re.compile(
    f"[{_ALWAYS}]"
    f"|(?<![{_JOINED}])(?<![{_EMOJI}]\ufe0f)[\u200b-\u200d]"
    f"|(?<![{_EMOJI}\u3400-\u9fff\uf900-\ufaff\u1000-\u109f])[{_SELECTORS}](?!\u20e3)"
)
# `re` looks up a class of the basic plane in a table, but tries one with astral characters range by range: hence two.
_BASIC = "".join(part for part in re.findall(r".-.|.", f"{_ALWAYS}{_SELECTORS}\u200b-\u200d") if part[0] < "\U00010000")
_MAYBE_INVISIBLE = re.compile(f"[{_BASIC}]")
_MAYBE_ASTRAL = re.compile("[\U0001bca0-\U000e0fff]")

_NUMBER = re.compile(r"\[(\d{1,4})\]")


def neutralise(text: str) -> str:
    """Remove invisible characters and break up control tokens. Idempotent."""
    return break_up(visible(text))


def break_up(text: str) -> str:
    """Put a space after the opening bracket of each control token."""
    if not any(bracket in text for bracket in (_BRACKETS if text.isascii() else _ALL_BRACKETS)):
        return text
    if text.isascii() or not _DISGUISE.search(text):
        return _CONTROL.sub(r"\g<0> ", text)
    return _break_up_disguised(text)


def _break_up_disguised(text: str) -> str:
    pieces, done = [], 0
    for bracket in _OPENS.finditer(text):
        start = bracket.start()
        if match := _CONTROL.match(text[start : start + _MAX_TOKEN].translate(_ALIKE)):
            pieces.append(text[done : start + match.end()])
            done = start + match.end()
    return " ".join([*pieces, text[done:]])


def visible(text: str) -> str:
    """Remove invisible characters: controls, tags, direction marks, misplaced joiners and variation selectors."""
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    if _MAYBE_INVISIBLE.search(text) or _MAYBE_ASTRAL.search(text):
        return _INVISIBLE.sub("", text)
    return text


def looking_like(text: str) -> str:
    """Replace look-alikes by the Latin letters and brackets that they imitate. The length stays the same."""
    return text.translate(_ALIKE)


def renumber(text: str) -> str:
    """Replace "[12]" by "(12)", since it looks like the number of another passage."""
    return _NUMBER.sub(r"(\1)", text)
