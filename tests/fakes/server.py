"""`python -m tests.fakes.server HOME [SETTINGS]`: the real server over fakes, in a process of its own, on a free port.

SETTINGS is JSON: settings of [service] that differ.

The answerer says one event, is silent for as long as the query says if that is a number of seconds, and is done.
"""

import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from app.config.settings import IndexSection, ServiceSettings, Settings
from app.domain import ANONYMOUS, AnswerEvent, Caller, Question, SourcesFound, TextDelta
from app.main import serve
from app.wiring import Services
from indexing.store.base import VectorStore
from indexing.store.embedded import EmbeddedStore
from tests.fakes.answerer import DONE, ScriptedAnswerer
from tests.fakes.corpus import fill
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder


class PatientAnswerer(ScriptedAnswerer):
    """Takes the time that the question names; says on standard output when it is asked, and when it is cut short."""

    def stream(self, question: Question, caller: Caller = ANONYMOUS) -> AsyncIterator[AnswerEvent]:
        self.script = (SourcesFound(()), _seconds(question.search.text), TextDelta("Yes."), DONE)
        return self._told(super().stream(question, caller))

    async def _told(self, events: AsyncIterator[AnswerEvent]) -> AsyncIterator[AnswerEvent]:
        _say("asked")
        try:
            async for event in events:
                yield event
        except BaseException:
            _say("cut short")
            raise


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _seconds(text: str) -> float:
    return float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else 0.0


def main(home: Path, changed: str = "{}") -> None:
    """Serve until told to stop."""

    async def open_store() -> VectorStore:
        store = EmbeddedStore(home / "index")
        await fill(store)
        return store

    service = msgspec.convert({"port": 0, "ping_s": 0.2, **msgspec.json.decode(changed)}, ServiceSettings)
    settings = Settings(service=service, index=IndexSection(home=home))
    serve(settings, Services(settings, open_store, GivenEmbedder(HashEmbedder()), lambda _services: PatientAnswerer()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
