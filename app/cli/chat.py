"""`winnow chat`: a conversation with a model in the terminal, or one question from a pipe."""

import sys
from collections.abc import Callable
from typing import Any

import rich_click as click

from app.cli.render import clean
from app.cli.session import stream_chat
from app.cli.terminal import current_settings, dollars, err, out
from app.config.settings import Settings
from app.errors import WinnowError

HELP = """\
/help            these commands
/clear           forget the conversation
/model [NAME]    ask another backend from now on: a configured name, or auto
/system [TEXT]   what the model is told before the conversation
/exit            end, as does Ctrl-D; Ctrl-C ends an answer"""

_MOST_TURNS = 199
"""With the new message 200, as many as /chat takes."""


@click.command()
@click.argument("message", required=False)
@click.option("--system", default="", help="What the model is told before the conversation.")
@click.option("--backend", help="Backend: a configured name, or auto.  [default: the configured one]")
@click.option("--max-output-tokens", type=click.IntRange(1, 65_536), default=1024, help="Longest reply.")
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.0, help="0 replies alike each time.")
def chat(message: str | None, backend: str | None, **options: Any) -> None:
    """Talk to a model. With MESSAGE, or with text from a pipe, print its one reply.

    In the terminal: /help lists the commands, Ctrl-C ends an answer, Ctrl-D the chat.
    """
    conversation = Conversation(current_settings(), {**options, **({"backend": backend} if backend else {})})
    if message is None and not sys.stdin.isatty():
        message = sys.stdin.buffer.read().decode("utf-8", "replace").strip()
        if not message:
            raise click.UsageError("standard input is empty; give a MESSAGE")
    if message is not None:
        conversation.ask(message.encode("utf-8", "replace").decode())
        return
    err.print("/help lists the commands; Ctrl-D ends the chat", style="dim")
    converse(conversation, _prompted)


def _prompted() -> str:
    """The next line of the user. Raises EOFError, KeyboardInterrupt."""
    return input("> ")


class Conversation:
    """What was said so far, and how the model is asked. Replies are printed as they come."""

    def __init__(self, settings: Settings, options: dict[str, Any]) -> None:
        self.options, self._settings = options, settings
        self.turns: list[dict[str, str]] = []

    def ask(self, message: str) -> None:
        """Print the reply and what it cost. Raises WinnowError, KeyboardInterrupt; then nothing was said."""
        text = ""

        def show(name: str, data: dict[str, Any]) -> None:
            nonlocal text
            if name == "delta":
                text += data["text"]
                out.print(clean(data["text"]), end="", markup=False, highlight=False)
                sys.stdout.flush()
            elif name == "done":
                out.print()
                _note(_summary(data))

        turns = [*self.turns, {"role": "user", "content": message}]
        stream_chat(self._settings, {**self.options, "messages": turns}, show)
        reply = {"role": "assistant", "content": text}
        self.turns = [*turns, reply][-_MOST_TURNS + 1 :] if text else self.turns

    def obey(self, line: str) -> bool:
        """Do what a line with a slash says; False ends the chat."""
        command, _, argument = line.partition(" ")
        argument = argument.strip()
        match command:
            case "/exit" | "/quit":
                return False
            case "/clear":
                self.turns = []
                _note("the conversation is forgotten")
            case "/model" if argument:
                self.options["backend"] = argument
                _note(f"from now on {argument} is asked")
            case "/model":
                _note(f"{self.options.get('backend') or 'the configured backend'} is asked")
            case "/system":
                self.options["system"] = argument
                _note("the model is told that from now on" if argument else "the model is told nothing more")
            case "/help":
                _note(HELP)
            case _:
                _note(f"there is no command {command}; /help lists them", "yellow")
        return True


def converse(conversation: Conversation, read: Callable[[], str]) -> None:
    """Read and reply until the user ends it. An answer that fails or is interrupted was never asked for."""
    while True:
        try:
            line = read().strip()
        except EOFError:
            err.print()
            return
        except KeyboardInterrupt:
            err.print("\nCtrl-D ends the chat", style="dim")
            continue
        if not line:
            continue
        if line.startswith("/"):
            if not conversation.obey(line):
                return
            continue
        try:
            conversation.ask(line)
        except KeyboardInterrupt:
            _note("\ninterrupted", "yellow")
        except WinnowError as exc:
            _note(str(exc), "red")


def _summary(done: dict[str, Any]) -> str:
    usage, use = done["usage"], done["backend"]
    counts = f"{usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out"
    cut = "; cut at its longest length" if done["finish_reason"] == "length" else ""
    return f"{use['used']}: {counts}, {dollars(usage['cost_usd'])}, {done['timings_ms']['total'] / 1000:.1f} s{cut}"


def _note(sentence: str, style: str = "dim") -> None:
    err.print(clean(sentence), style=style, markup=False, highlight=False)
