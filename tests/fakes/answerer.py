"""An answerer that plays a script."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from app.domain import ANONYMOUS, Answer, AnswerDone, AnswerEvent, BackendUse, Caller, Question
from app.errors import UnknownBackend

DONE = AnswerDone(
    Answer(
        answer="Yes.",
        answerable=True,
        abstain_reason=None,
        citations=(),
        unsupported=(),
        results=(),
        backend=BackendUse(requested="auto", used="none"),
        answer_backend=BackendUse(requested="auto", used="extractive"),
        timings_ms={"total": 1.0},
    )
)


class ScriptedAnswerer:
    """Yields the script's events; an exception in it is raised, a number is that many seconds of silence.

    `asked` tells whether a run has begun, `cancelled` whether one was stopped before its end. An answer backend called
    "nobody" is unknown.
    """

    def __init__(self, script: Sequence[AnswerEvent | Exception | float] = (DONE,)) -> None:
        self.script = script
        self.questions: list[Question] = []
        self.asked, self.cancelled = asyncio.Event(), asyncio.Event()

    async def answer(self, question: Question, caller: Caller = ANONYMOUS) -> Answer:
        return (await self.whole(question, caller)).answer

    async def whole(self, question: Question, caller: Caller = ANONYMOUS) -> AnswerDone:
        async for event in self.stream(question, caller):
            if isinstance(event, AnswerDone):
                return event
        raise AssertionError("the script does not end in AnswerDone")

    def stream(self, question: Question, caller: Caller = ANONYMOUS) -> AsyncIterator[AnswerEvent]:
        if question.answer_backend == "nobody":
            raise UnknownBackend("unknown backend 'nobody'; known are extractive")
        self.questions.append(question)
        self.asked.set()
        return self._play()

    async def _play(self) -> AsyncIterator[AnswerEvent]:
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float | int):
                    await asyncio.sleep(step)
                else:
                    yield step
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise
