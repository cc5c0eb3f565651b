"""Fill-in-the-middle: code models that were trained to write what belongs between two texts.

They are asked over /v1/completions, by markers of their own. Ollama knows its models' markers; for the others there is
the table below. A name in it is only a hint: a model is asked so if each of its markers is one token of its tokenizer.
"""

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from app.backends.base import Infill


class Markers(msgspec.Struct, frozen=True, kw_only=True):
    """What stands before the prefix, before the suffix, and before what is filled in; `ends` may follow it.

    `suffix_first`: the suffix comes before the prefix. `middle` "": the prefix is simply gone on from. `end_ids` are
    the tokens of one model that end what it fills in.
    """

    prefix: str
    suffix: str
    middle: str = ""
    suffix_first: bool = False
    ends: tuple[str, ...] = ()
    end_ids: tuple[int, ...] = ()

    def tokens(self) -> tuple[str, ...]:
        """Those that must be one token each."""
        return tuple(marker.strip(" ") for marker in (self.prefix, self.suffix, self.middle) if marker)

    def prompt(self, infill: Infill) -> str:
        """The prompt. Markers within the texts would be taken for markers, and are left out."""
        parts = [self.prefix + self._plain(infill.prefix), self.suffix + self._plain(infill.suffix)]
        return "".join(reversed(parts) if self.suffix_first else parts) + self.middle

    def _plain(self, text: str) -> str:
        return re.sub("|".join(map(re.escape, (*self.tokens(), *self.ends))), "", text)


Infilling = Markers | Literal["suffix"]
"""How a model is asked: by markers, or with the field `suffix`, for which its server knows them."""

_PLAIN = Markers(
    prefix="<fim_prefix>",
    suffix="<fim_suffix>",
    middle="<fim_middle>",
    ends=("<|endoftext|>", "<file_sep>", "<repo_name>", "<fim_pad>"),
)
_PIPED = Markers(
    prefix="<|fim_prefix|>",
    suffix="<|fim_suffix|>",
    middle="<|fim_middle|>",
    ends=("<|endoftext|>", "<|file_sep|>", "<|repo_name|>", "<|fim_pad|>", "<|file_separator|>"),
)
_FAMILIES: tuple[tuple[str, tuple[Markers, ...]], ...] = (
    (r"qwen[\d.]*-?coder|codegemma", (_PIPED,)),
    (r"starcoder|santacoder|stable-?code|codeqwen|refact", (_PLAIN,)),
    (r"granite", (_PLAIN, _PIPED)),  # until 3.3, and from 4 on
    (r"mellum", (msgspec.structs.replace(_PLAIN, suffix_first=True),)),
    # The blank that follows the first marker is a part of how it was trained.
    (r"code-?llama", (Markers(prefix="▁<PRE> ", suffix="▁<SUF>", middle="▁<MID>", ends=("▁<EOT>",)),)),
    (
        r"deepseek",
        (Markers(prefix="<｜fim▁begin｜>", suffix="<｜fim▁hole｜>", middle="<｜fim▁end｜>", ends=("<|EOT|>",)),),
    ),
    (r"codestral", (Markers(prefix="[PREFIX]", suffix="[SUFFIX]", suffix_first=True),)),
    (
        r"seed-?coder",
        (Markers(prefix="<[fim-prefix]>", suffix="<[fim-suffix]>", middle="<[fim-middle]>", suffix_first=True),),
    ),
)


def likely_markers(*names: str) -> Iterator[Markers]:
    """Those that a model of these names may have: what it is called, and where its files are."""
    for pattern, markers in _FAMILIES:
        if any(re.search(pattern, name.lower()) for name in names):
            yield from markers
