"""What of a model's reply is to be inserted at a cursor: of one that was told to complete, and of one that fills in.

Both take the reply in pieces and give what can be told already, and both know when enough has come (`over`). Pure.
"""

import re

_FENCE, _CLOSING = "```", "\n```"

_GOES_ON = re.compile(
    r"[)\]}]|</|(?:else|elif|elsif|except|rescue|catch|finally|ensure|case|default|when|end|fi|done|esac)\b"
)
"""How a line begins that belongs to the block before it, though it is indented no deeper than what opened that."""


class Insertion:
    """Takes a reply in pieces and gives what is to be inserted: without a fence around it and the line before it."""

    def __init__(self, prefix: str) -> None:
        self._line = prefix.rpartition("\n")[2]
        self._held = ""
        self._begun = self._fenced = self.over = False

    def feed(self, piece: str) -> str:
        """What can be told of it already."""
        self._held += piece
        return self._released(last=False)

    def end(self) -> str:
        """The rest."""
        return self._released(last=True)

    def _released(self, *, last: bool) -> str:
        if not self._begun and not self._begin(last=last):
            return ""
        if self.over:
            return ""
        text, self._held = self._held, ""
        if not self._fenced:
            return text
        before, closing, _ = text.partition(_CLOSING)
        self.over = bool(closing)
        if closing or last:
            return before
        kept = next((size for size in range(len(_CLOSING) - 1, 0, -1) if text.endswith(_CLOSING[:size])), 0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def _begin(self, *, last: bool) -> bool:
        """Whether enough has come to know how it begins; then fence and repeated line are gone."""
        text, stripped = self._held, self._held.lstrip("\n")
        if not last and len(stripped) < len(_FENCE) and _FENCE.startswith(stripped):
            return False
        fenced = stripped.startswith(_FENCE)
        if fenced:
            _, newline, text = stripped.partition("\n")
            if not newline and not last:
                return False
        if not last and len(text) < len(self._line) and self._line.startswith(text):
            return False
        self._held, self._fenced, self._begun = text.removeprefix(self._line), fenced, True
        return True


class Block:
    """Takes what a model fills in and gives the lines up to the end of the statement or block at the cursor.

    Such models go on and on, above all where nothing follows. If something stands after the cursor on its line, what
    they write on that line is all. Else it ends, once something is written, before a line that is indented less than
    the one of the cursor, and before one that is indented like that one, after deeper lines or a blank one; but
    brackets that close, `else` and the like go on. The last line break is not inserted.
    """

    def __init__(self, prefix: str, suffix: str) -> None:
        self._level = _indentation(prefix.rpartition("\n")[2])
        self._one_line = bool(suffix.partition("\n")[0].strip())
        self._line: str | None = None  # None: the rest of the cursor's line, which is let through as it comes
        self._blank = ""
        self._written = self._deeper = self.over = False

    def feed(self, piece: str) -> str:
        """The lines that are complete, and what comes of the first one."""
        given = ""
        while piece and not self.over:
            text, newline, piece = piece.partition("\n")
            if self._line is None:
                given += text
                self._written = self._written or bool(text.strip())
            else:
                self._line += text
            if newline:
                given += self._line_over()
        return given

    def end(self) -> str:
        """The last line."""
        return "" if self.over or self._line is None else self._judged(self._line)

    def _line_over(self) -> str:
        line, self._line = self._line, ""
        self.over = self._one_line and self._written
        return "" if line is None else self._judged(line)

    def _judged(self, line: str) -> str:
        """The line with the break before it, if it belongs to the block; blank ones wait for what follows."""
        if not line.strip():
            self._blank += f"\n{line}"
            return ""
        level, goes_on = _indentation(line), _GOES_ON.match(line.lstrip())
        if self._written and (
            level < self._level or (level == self._level and not goes_on and (self._deeper or self._blank))
        ):
            self.over = True
            return ""
        if not self._written:
            self._level = min(self._level, level)
        self._deeper, self._written = self._deeper or level > self._level, True
        given, self._blank = f"{self._blank}\n{line}", ""
        return given


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))
