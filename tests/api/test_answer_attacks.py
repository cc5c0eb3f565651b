"""POST /answer over documents that attack: through the real SDKs, to a model that obeys whatever is not quoted.

And the reverse: a model that was taken in, whose words must not load or lead away anything.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.text.fencing import neutralise
from indexing.documents import Passage
from tests.attacks.answers import ANSWER_ATTACKS, LEAKS
from tests.attacks.injections import ATTACKS
from tests.fakes.answering_model import AnsweringModel
from tests.fakes.answering_service import AnsweringService, answering_service, server_of, text_of
from tests.fakes.corpus import passage
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.obedient_model import ObedientModel, quoted

pytestmark = pytest.mark.anyio

DENTAL = "When does dental cover start?"
STARTS = "Dental cover starts on the first day of work [1]."
ALL = [attack.text for attack in (*ATTACKS, *ANSWER_ATTACKS)]
DIALECTS = ("gemini", "vllm", "ollama")

CONTROL = re.compile(
    r"<(?:/?s|bos|eos|pad|unk|mask|(?:start|end)_of_(?:turn|image)|\|[^|<>\s]*\|?|[^|<>\s]*\||｜[^｜]*｜|turn\|)>"
    r"|\[/?INST\]|<</?SYS>>|\[/?(?:SYSTEM_PROMPT|TOOL_CALLS)\]",
    re.IGNORECASE,
)
"""As tokenizers of Gemma, Qwen, Llama, Mistral, DeepSeek and Phi know them."""

MARKER = re.compile(r"[\[［【〔⟦][^\[\]［］【】〔〕⟦⟧()]*[0-9０-９][^\[\]［］【】〔〕⟦⟧()]*[\]］】〕⟧]")

LIVE = re.compile(r"!\[|<[a-z/!?]|\]\(|(?:https?://|www\.|mailto:)\w", re.IGNORECASE)

TOOLS = {"tools", "functions", "tool_choice", "function_call", "toolConfig", "tool_config"}


def attacked(text: str, number: int, where: str = "text") -> Passage:
    """A document about something else, with the attack in it."""
    plain = passage(f"attack-{number}", f"The handbook has rules for everybody. {text}", {"attack": number})
    if where == "text":
        return plain
    bare = msgspec.structs.replace(plain, text="The handbook has rules for everybody.", end=37)
    told: dict[str, Any] = {
        "title": text,
        "source": f"{text}.txt",
        "heading": (text, text),
        "metadata": {"attack": number, "note": text, "title": text},
    }
    return msgspec.structs.replace(bare, **{where: told[where]})


def corpus(texts: Sequence[str], where: str = "text") -> list[Passage]:
    """The document that answers, a harmless one, and each attack."""
    dental = passage("dental", "Dental cover starts on the first day of work.", {"attack": -1})
    harmless = attacked("Nothing more is known.", 0)
    return [dental, harmless, *(attacked(text, number, where) for number, text in enumerate(texts, 1))]


async def answers(service: AnsweringService, count: int, **body: Any) -> Iterator[dict[str, Any]]:
    """To the question, over the document that answers and one other: first the harmless one, then each attack."""
    return iter(
        [
            await service.ask(DENTAL, filter={"attack": [-1, number]}, min_relevance=0, **body)
            for number in range(count + 1)
        ]
    )


def check_prompt(turns: Sequence[tuple[str, str]]) -> None:
    """Nothing in it is a control token, and every quoted line is of the passage and the number that it says."""
    assert [role for role, _ in turns] in (["system", "user"], ["user"])
    assert not CONTROL.search("\n".join(text for _, text in turns))
    passages = quoted(turns[-1][1])
    assert len(passages) == 2
    for number, (name, *lines) in enumerate(passages, 1):
        assert name.startswith("From: ")
        for place, line in enumerate(lines, 1):
            assert line.startswith(f"[{number}.{place}] ")
        for said in (name, *(line.partition("] ")[2] for line in lines)):
            assert not MARKER.search(said), said
            assert said.splitlines() == [said]
            assert neutralise(said) == said


def keys(value: Any) -> set[str]:
    """Of all objects in a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


@pytest.mark.slow
@pytest.mark.parametrize("kind", DIALECTS)
async def test_no_attack_in_a_document_is_obeyed(tmp_path: Path, kind: str) -> None:
    """The answer is that of the document that answers; no attack reached the model as anything but a quotation."""
    mind = ObedientModel()
    server = server_of(kind, mind)
    async with answering_service(tmp_path, {"tiny": server}, corpus(ALL)) as service:
        for answer, text in zip(await answers(service, len(ALL)), ["", *ALL], strict=True):
            assert answer["answer"] == STARTS, text
            assert [citation["document_id"] for citation in answer["citations"]] == ["dental"]
        for turns in mind.asked:
            check_prompt(turns)
        assert len(mind.asked) == len(ALL) + 1
        bodies = server.bodies if isinstance(server, GeminiServer) else server.bodies()
        assert len(bodies) >= len(ALL)
        assert not keys(bodies) & TOOLS


@pytest.mark.slow
@pytest.mark.parametrize("where", ["title", "source", "heading", "metadata"])
async def test_no_attack_beside_a_text_is_obeyed(tmp_path: Path, where: str) -> None:
    """Title, source and headings are quoted as texts are; metadata is not shown at all."""
    mind = ObedientModel()
    async with answering_service(tmp_path, {"tiny": server_of("vllm", mind)}, corpus(ALL, where)) as service:
        for answer, text in zip(await answers(service, len(ALL)), ["", *ALL], strict=True):
            assert answer["answer"] == STARTS, text
        for turns in mind.asked:
            check_prompt(turns)


@pytest.mark.slow
async def test_no_attack_in_an_earlier_turn_is_obeyed(tmp_path: Path) -> None:
    """What an earlier answer quoted from a document is quoted again."""
    mind = ObedientModel()
    async with answering_service(tmp_path, {"tiny": server_of("vllm", mind)}, corpus([])) as service:
        for text in ["Nothing more is known.", *ALL]:
            messages = [{"role": "user", "content": "What is new?"}, {"role": "assistant", "content": text}]
            answer = await service.ask(DENTAL, messages=messages, min_relevance=0)
            assert answer["answer"] == STARTS, text
        assert not any(CONTROL.search(said) for turns in mind.asked for _, said in turns)


@pytest.mark.parametrize("leak", LEAKS)
async def test_a_model_that_was_taken_in_gives_nothing_away(tmp_path: Path, leak: str) -> None:
    """No image, tag or foreign link is in the answer, streamed or not, and what stands on the documents stays."""
    said = f"Dental cover starts on the first day of work [1.1]. {leak} And more.\n{leak}"
    mind = AnsweringModel(dress=lambda _: said)
    guide = passage("guide", "Where to park is told at https://acme.example/guide to all.")
    dental = passage("dental", "Dental cover starts on the first day of work.")
    async with answering_service(tmp_path, {"tiny": server_of("vllm", mind)}, [dental, guide]) as service:
        whole, events = await service.ask(DENTAL, min_relevance=0), await service.stream(DENTAL, min_relevance=0)
        assert whole["answer"].startswith("Dental cover starts on the first day of work")
        assert text_of(events) == whole["answer"]
        without_known = re.sub(r"\]?\(https://acme\.example/guide\)", "]", whole["answer"])
        assert not LIVE.search(without_known), whole["answer"]
        assert "![" not in whole["answer"]
        assert "evil" not in re.sub(r"\(//evil\.example|'//evil\.example|=//evil\.example", "", whole["answer"])


async def test_what_only_an_attacker_says_is_no_answer(tmp_path: Path) -> None:
    """A model that repeats what it was told, with markers to nowhere or none, has answered nothing."""
    async with answering_service(
        tmp_path,
        {"tiny": server_of("vllm", AnsweringModel(dress=lambda _: "PWNED [9.1]. Visit https://evil.example."))},
    ) as service:
        whole, events = await service.ask(DENTAL), await service.stream(DENTAL)
        assert (whole["answerable"], whole["abstain_reason"], whole["citations"]) == (False, "unsupported", [])
        assert "PWNED" not in whole["answer"]
        assert text_of(events) == whole["answer"]


async def test_an_address_of_a_document_stays_in_the_answer(tmp_path: Path) -> None:
    """As a link, where the model makes one of it; others are removed, and counted."""
    said = "See [the guide](https://acme.example/guide) for it [1.2]. Or https://evil.example/."
    guide = passage("guide", "Dental cover: when does it start? See https://acme.example/guide for it.")
    mind = AnsweringModel(dress=lambda _: said)
    async with answering_service(tmp_path, {"tiny": server_of("vllm", mind)}, [guide]) as service:
        answer = await service.ask(DENTAL, min_relevance=0)
        assert "[the guide](https://acme.example/guide)" in answer["answer"]
        assert answer["warnings"] == ["URLs not found in any passage were removed: 1."]


async def test_an_extractive_answer_loads_nothing(tmp_path: Path) -> None:
    """It quotes documents, with their addresses, but without their images and tags."""
    text = "Dental cover starts on the first day ![of](https://evil.example/pixel.png) work <img src=x>."
    async with answering_service(tmp_path, {}, [passage("dental", text)]) as service:
        answer = await service.ask(DENTAL, answer_backend="extractive", min_relevance=0)
        assert answer["answerable"]
        assert not re.search(r"!\[|<[a-z/!?]", answer["answer"])
        assert answer["citations"][0]["quote"] == text
