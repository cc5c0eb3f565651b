"""`winnow chat`: what ends an answer, what ends the chat, and what the commands do."""

from collections.abc import Iterable

import pytest

from app.cli.chat import Conversation, converse
from app.config.settings import Settings
from app.errors import UpstreamTimeout


class Scripted(Conversation):
    """Notes what is asked, and raises what the script says."""

    def __init__(self, *failures: BaseException | None) -> None:
        super().__init__(Settings(), {})
        self.asked: list[str] = []
        self._failures = list(failures)

    def ask(self, message: str) -> None:
        self.asked.append(message)
        if self._failures and (failure := self._failures.pop(0)):
            raise failure
        self.turns = [*self.turns, {"role": "user", "content": message}, {"role": "assistant", "content": "yes"}]


class Keyboard:
    """Gives a line each time, or raises; then Ctrl-D."""

    def __init__(self, lines: Iterable[str | BaseException]) -> None:
        self._lines = iter(lines)

    def __call__(self) -> str:
        line = next(self._lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line


def talk(conversation: Conversation, *lines: str | BaseException) -> None:
    converse(conversation, Keyboard(lines))


def test_it_goes_on_until_the_input_ends() -> None:
    """Empty lines are no messages."""
    conversation = Scripted()
    talk(conversation, "one", "", "  ", "two")
    assert conversation.asked == ["one", "two"]
    assert len(conversation.turns) == 4


def test_an_interrupted_answer_does_not_end_the_chat(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does one that fails; neither is remembered."""
    conversation = Scripted(KeyboardInterrupt(), UpstreamTimeout("flash", "flash did not answer"))
    talk(conversation, "one", "two", KeyboardInterrupt(), "three")
    assert conversation.asked == ["one", "two", "three"]
    assert [turn["content"] for turn in conversation.turns] == ["three", "yes"]
    said = capsys.readouterr().err
    assert "interrupted" in said
    assert "flash did not answer" in said
    assert "Ctrl-D ends the chat" in said


def test_commands_are_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """They change what is asked and remembered; an unknown one says so."""
    conversation = Scripted()
    talk(conversation, "one", "/clear", "/model gemma", "/system Be brief.", "/what", "/help", "/exit", "two")
    assert (conversation.asked, conversation.turns) == (["one"], [])
    assert conversation.options == {"backend": "gemma", "system": "Be brief."}
    said = capsys.readouterr().err
    assert "there is no command /what" in said
    assert "/clear" in said
