"""What small models say before they answer: their thoughts, and that an answer follows. Pure."""

import re

_THOUGHTS = ("<think>", "<thinking>")
_LABEL = re.compile(
    r"(?:\*\*)?(?:answer|antwort|réponse|respuesta|答案|回答|答え|الإجابة)(?:\*\*)?\s?[:：](?:\*\*)?", re.IGNORECASE
)
_LONGEST = 24
"""Characters of the longest label; until then it is not known whether there is one."""


class Opening:
    """Takes a text in pieces and hands it on without a block of thoughts and a label at its very beginning."""

    def __init__(self) -> None:
        self._held: str | None = ""  # None: the answer has begun
        self._end = ""  # what ends the thoughts that are open

    def read(self, text: str) -> str:
        """What belongs to the answer."""
        if self._held is None:
            return text
        self._held += text
        while (self._end or self._enter()) and self._leave():
            pass
        if self._end or self._undecided():
            return ""
        return self.finish()

    def finish(self) -> str:
        """What was held back, when nothing more comes. Thoughts without an end are no answer."""
        held, self._held = (self._held or ""), None
        if self._end:
            return ""
        held = held.lstrip()
        label = _LABEL.match(held)
        return held[label.end() :] if label else held

    def _enter(self) -> bool:
        begun = (self._held or "").lstrip()
        for opening in _THOUGHTS:
            if begun.lower().startswith(opening):
                self._end = f"</{opening[1:]}"
                return True
        return False

    def _leave(self) -> bool:
        thoughts, end, after = (self._held or "").partition(self._end)
        if not end:
            self._held = thoughts[-len(self._end) :]
            return False
        self._held, self._end = after, ""
        return True

    def _undecided(self) -> bool:
        return len((self._held or "").lstrip()) < _LONGEST
