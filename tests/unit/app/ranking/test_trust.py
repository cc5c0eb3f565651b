"""How far models are believed: from controls to trust, and from trust to rankings."""

import asyncio
import json
import math
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from app.backends.base import ChatRequest, Conversation, Deadline, LabelScores, Reply, Scoring, Way
from app.domain import Strategy
from app.errors import UpstreamUnavailable, UpstreamUntrusted
from app.ranking.cache import ScoreCache
from app.ranking.models import LABELS, Calibration, Ranking
from app.ranking.prompts import PROMPT_VERSION
from app.ranking.reranker import RankingTask, Reranker
from app.ranking.trust import (
    MIN_TRUST,
    TOPICS_AT_ONCE,
    TRUST_FILE,
    Owner,
    Record,
    TopicReading,
    TrustBook,
    read_records,
    topics,
)
from app.services.answer import MIN_RELEVANCE, MIN_SCORE
from tests.fakes.passage_reader import ScriptedReader, candidates, falling
from tests.fakes.virtual_time import run

OWNER: Owner = ("gemma", "gemma-3", PROMPT_VERSION, "scorer")
WAYS: tuple[Way, ...] = ("scorer", "judge")
STRATEGIES: tuple[Strategy, ...] = ("auto", "graded", "duel", "pointwise", "listwise")

ANSWERS_OF = {topic: frozenset(topic.answers) for topic in topics()}


class Knowing(ScriptedReader):
    """Grades controls by `meant`, from whether a passage answers to [0,1], and other passages by their quality."""

    def __init__(self, meant: Callable[[bool], float], quality: dict[str, float], way: Way = "scorer") -> None:
        super().__init__(quality, way)
        self.meant = meant
        self.controls = 0

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str]) -> Scoring:
        scoring = await super().score(prompts, labels)
        scores = (
            self._of_control(prompt[-1].content) or other for prompt, other in zip(prompts, scoring.scores, strict=True)
        )
        return Scoring(scores=tuple(scores), tokens=scoring.tokens)

    async def complete(self, request: ChatRequest) -> Reply:
        reply = await super().complete(request)
        said = request.messages[-1].content
        topic = next((topic for topic in topics() if f"Query: {topic.query}" in said), None)
        if topic is None:
            return reply
        shown = re.findall(r"^\w+ \[(\d+)\] (.+)$", said, re.MULTILINE)
        self.controls += len(shown)
        grades = {int(number): round(3 * self.meant(text in ANSWERS_OF[topic])) for number, text in shown}
        text = json.dumps({str(grade): [n for n, given in grades.items() if given == grade] for grade in (3, 2, 1)})
        return Reply(text=text, finish_reason="stop", tokens=reply.tokens, model=self.model)

    def _of_control(self, said: str) -> LabelScores | None:
        topic = next((topic for topic in topics() if f"Query: {topic.query}" in said), None)
        text = topic and next((text for text in (*topic.answers, *topic.others) if text in said), None)
        if topic is None or text is None:
            return None
        self.controls += 1
        meant = 3 * self.meant(text in topic.answers)
        logs = [-2 * (grade - meant) ** 2 for grade in range(len(LABELS))]
        return LabelScores(logprobs=tuple(log - max(logs) - 0.7 for log in logs), floor=-30.0)


def knowing(answers: bool) -> float:
    return float(answers)


def inverted(answers: bool) -> float:
    return float(not answers)


def flattering(answers: bool) -> float:
    return 1.0


def coin(seed: int) -> Callable[[bool], float]:
    chance = random.Random(seed)
    return lambda answers: chance.choice((0.0, 1 / 3, 2 / 3, 1.0))


BELIEVED = {"calibrations": {("gemma-3", PROMPT_VERSION): Calibration()}}
"""Settings under which nobody is examined."""

LAST_IS_BEST = {f"p{number}": number / 9 for number in range(9)}


def rank(
    reader: ScriptedReader,
    book: TrustBook,
    strategy: Strategy = "graded",
    cache: ScoreCache | None = None,
    **settings: object,
) -> Ranking:
    """The last ones by retrieval are the best for the model."""

    async def ranked() -> Ranking:
        reranker = Reranker(cache or ScoreCache(1000), trust=book, **settings)  # type: ignore[arg-type]
        task = RankingTask(query="what is told?", candidates=falling(9), strategy=strategy)
        try:
            return await reranker.rank(task, reader, Deadline(10.0))
        finally:
            await reranker.close()

    return run(ranked())


def record_of(draw: Callable[[bool], float]) -> Record:
    """As if every topic had been read; log-odds from -4 to 4."""
    return Record(
        readings={
            topic.query: TopicReading(
                answers=tuple(8 * draw(True) - 4 for _ in topic.answers),
                others=tuple(8 * draw(False) - 4 for _ in topic.others),
            )
            for topic in topics()
        }
    )


def test_controls_are_balanced_and_do_not_give_themselves_away() -> None:
    """As many answers as others in each topic, no passage twice, and those that only sound alike repeat more words."""
    for topic in topics():
        assert len(topic.answers) == len(topic.others)
        assert len({*topic.answers, *topic.others}) == len(topic.answers) + len(topic.others)
        words = set(topic.query.lower().strip("?").split())
        shared = [len(words & set(text.lower().replace(".", "").replace(",", "").split())) for text in topic.answers]
        alike = [len(words & set(text.lower().replace(".", "").replace(",", "").split())) for text in topic.others[:2]]
        assert min(alike) >= max(shared) - 1
        assert sum(alike) / 2 > sum(shared) / 4


def test_who_knows_is_trusted_in_full_and_who_does_not_not_at_all() -> None:
    """Knowing all is 1; turning all around, and saying 3 to all, 0, and so is knowing nothing of it."""
    assert record_of(knowing).trust == 1.0
    assert record_of(inverted).trust == 0.0
    assert record_of(flattering).trust == 0.0
    assert Record().trust == 0.0


def test_coins_are_hardly_ever_trusted() -> None:
    """Of 500 confident coins 97 % have no trust, and none has much."""
    trusts = [record_of(coin(seed)).trust for seed in range(500)]
    assert sum(trust > 0 for trust in trusts) <= 15
    assert max(trusts) < 0.5


def test_who_errs_now_and_then_is_trusted() -> None:
    """Nine right out of ten are evidence enough for much trust, three out of four for some."""
    chance = random.Random(3)

    def right(share: float) -> Callable[[bool], float]:
        return lambda answers: float(answers == (chance.random() < share))

    assert min(record_of(right(0.9)).trust for _ in range(20)) > 0.7
    assert 0.2 < sum(record_of(right(0.75)).trust for _ in range(20)) / 20 < 0.9


@pytest.mark.parametrize("way", WAYS)
def test_a_good_model_ranks_from_its_first_question_on(way: Way) -> None:
    """With controls the order is what it is without; once it is trusted in full, no more of them are asked about."""
    book, reader = TrustBook(), Knowing(knowing, LAST_IS_BEST, way)
    assert rank(reader, book).order == rank(ScriptedReader(LAST_IS_BEST, way), TrustBook(), **BELIEVED).order
    assert book.record(("gemma", "gemma-3", PROMPT_VERSION, way)).trust == 1.0
    assert reader.controls == 8 * TOPICS_AT_ONCE[0]
    rank(reader, book)
    assert reader.controls == 8 * TOPICS_AT_ONCE[0]


@pytest.mark.parametrize("way", WAYS)
def test_a_model_in_doubt_is_asked_about_more_of_them_up_to_all(way: Way) -> None:
    """Half of them beside its first ranking, the other half beside its second, and then never again."""
    book, reader = TrustBook(), Knowing(flattering, LAST_IS_BEST, way)
    asked = []
    for _ in range(3):
        with pytest.raises(UpstreamUntrusted):
            rank(reader, book)
        asked.append(reader.controls)
    assert asked == [8 * sum(TOPICS_AT_ONCE), 8 * len(topics()), 8 * len(topics())]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("meant", [inverted, flattering])
def test_who_tells_nothing_does_not_rank(meant: Callable[[bool], float], strategy: Strategy, way: Way) -> None:
    """Neither on its first question nor later, and once all is known it is not even asked."""
    book, reader = TrustBook(), Knowing(meant, LAST_IS_BEST, way)
    for _ in range(2):
        with pytest.raises(UpstreamUntrusted, match="do not tell answers"):
            rank(reader, book, strategy)
    calls = reader.begun
    with pytest.raises(UpstreamUntrusted):
        rank(reader, book, strategy)
    assert reader.begun == calls


def test_a_model_that_fails_is_not_distrusted() -> None:
    """Controls without a reply say nothing of the model, and the failure is the one to report."""
    book = TrustBook()
    away = UpstreamUnavailable("gemma", "away")
    for strategy in STRATEGIES:
        with pytest.raises(UpstreamUnavailable):
            rank(ScriptedReader({}, script=lambda _: away), book, strategy)
    assert book.record(OWNER) == Record()


def test_who_replies_without_a_grade_is_not_asked_for_ever() -> None:
    """Controls of which a model says nothing, not even that it failed, count as read: it does not rank, and is left."""

    class Mute(Knowing):
        async def score(self, prompts: Sequence[Conversation], labels: Sequence[str]) -> Scoring:
            scoring = await super().score(prompts, labels)
            if "what is told?" in prompts[0][-1].content:
                return scoring
            nothing = LabelScores(logprobs=(None,) * len(labels), floor=-5.0)
            return Scoring(scores=(nothing,) * len(prompts), tokens=scoring.tokens)

    book, reader = TrustBook(), Mute(knowing, LAST_IS_BEST)
    for _ in range(2):
        with pytest.raises(UpstreamUntrusted, match="do not tell answers"):
            rank(reader, book)
    calls = reader.begun
    with pytest.raises(UpstreamUntrusted):
        rank(reader, book)
    assert reader.begun == calls


def test_grades_that_come_before_the_controls_are_not_used() -> None:
    """As long as nothing is known of a model, its grades change nothing; what came is kept for the next question."""

    class SlowAtControls(Knowing):
        async def score(self, prompts: Sequence[Conversation], labels: Sequence[str]) -> Scoring:
            if "what is told?" not in prompts[0][-1].content:
                await asyncio.sleep(99.0)
            return await super().score(prompts, labels)

    book, cache = TrustBook(), ScoreCache(1000)
    with pytest.raises(UpstreamUntrusted, match="has not graded the controls yet"):
        rank(SlowAtControls(knowing, LAST_IS_BEST), book, cache=cache)
    assert rank(Knowing(knowing, LAST_IS_BEST), book, cache=cache).order[0].id == "p8"


def test_a_calibrated_model_is_believed_as_fitted() -> None:
    """Who was measured on questions of the user's own is not examined."""
    reader = Knowing(inverted, LAST_IS_BEST)
    ranking = rank(reader, TrustBook(), **BELIEVED)
    assert ranking.order[0].id == "p8"
    assert reader.controls == 0


def test_little_trust_keeps_close_to_retrieval() -> None:
    """A model that is trusted a little moves scores from retrieval's towards its own, and takes no second look."""
    book = TrustBook()
    readings = {topic: TopicReading(answers=(2.0, -2.0, 2.0, 1.5), others=(-2.0, 2.0, -2.0, 0.0)) for topic in topics()}
    book.add(OWNER, readings)
    trust = book.record(OWNER).trust
    assert MIN_TRUST < trust < 0.5
    ranking = rank(Knowing(knowing, LAST_IS_BEST), book, "auto")
    assert ranking.rounds == 1
    full = {p.id: p.score for p in rank(ScriptedReader(LAST_IS_BEST), book, **BELIEVED).order}
    priors = {candidate.passage.id: candidate.score for candidate in falling(9)}
    for place in ranking.order:
        low, high = sorted((full[place.id], priors[place.id]))
        assert low - 0.02 <= place.score <= high + 0.02


def test_records_outlive_the_process_and_end_with_the_model(tmp_path: Path) -> None:
    """What one book has learnt another one reads; a backend's new model begins from nothing and replaces the old."""
    file = tmp_path / TRUST_FILE
    TrustBook(file).add(OWNER, {topic: TopicReading((4.0,) * 4, (-4.0,) * 4) for topic in topics()})
    again = TrustBook(file)
    assert again.record(OWNER).trust == 1.0
    other: Owner = ("gemma", "gemma-4", PROMPT_VERSION, "scorer")
    assert again.record(other) == Record()
    again.add(other, {topics()[0]: TopicReading((1.0,) * 4, (0.0,) * 4)})
    assert set(read_records(file)) == {other}


def test_two_processes_keep_both(tmp_path: Path) -> None:
    """What another process has written since is not lost."""
    file = tmp_path / TRUST_FILE
    one, two = TrustBook(file), TrustBook(file)
    reading = {topics()[0]: TopicReading((1.0,) * 4, (0.0,) * 4)}
    one.add(OWNER, reading)
    two.add(("flash", "f", PROMPT_VERSION, "judge"), reading)
    assert len(read_records(file)) == 2


@pytest.mark.parametrize("content", [b"", b"{", b'[{"backend": 1}]'])
def test_a_damaged_file_is_asked_for_again(tmp_path: Path, content: bytes) -> None:
    """It costs the controls once more, no error."""
    file = tmp_path / TRUST_FILE
    file.write_bytes(content)
    book = TrustBook(file)
    book.add(OWNER, {topics()[0]: TopicReading((1.0,) * 4, (0.0,) * 4)})
    assert set(read_records(file)) == {OWNER}


def test_a_home_that_cannot_be_written_costs_only_the_memory(tmp_path: Path) -> None:
    """The record then holds for this process."""
    book = TrustBook(tmp_path / "gone" / TRUST_FILE)
    book.add(OWNER, {topics()[0]: TopicReading((1.0,) * 4, (0.0,) * 4)})
    assert book.record(OWNER).readings


class LikeSmolLM2(ScriptedReader):
    """Grades everything, controls too, as SmolLM2-135M was measured to do (benchmarks/README.md, "Harm"): from .28 to
    .41, whatever it reads, with .05 to .16 of the probability on all labels together.
    """

    def _grade(self, text: str) -> LabelScores:
        chance = random.Random(text)
        meant, mass = chance.uniform(0.28, 0.41), chance.uniform(0.05, 0.16)
        shares = [math.comb(3, grade) * meant**grade * (1 - meant) ** (3 - grade) for grade in range(len(LABELS))]
        return LabelScores(logprobs=tuple(math.log(mass * share) for share in shares), floor=-25.0)


def test_a_weak_model_lifts_no_unrelated_passage_over_the_gate() -> None:
    """Trusted in full it would: from .08 to .5 and more. Known, it does not rank, and retrieval's scores stay."""

    async def best(book: TrustBook | None, query: str) -> float | None:
        task = RankingTask(query=query, candidates=candidates(*(0.08 - 0.008 * number for number in range(9))))
        reranker = Reranker(ScoreCache(100), trust=book)
        try:
            return (await reranker.rank(task, LikeSmolLM2({}), Deadline(10))).order[0].score
        except UpstreamUntrusted:
            return None
        finally:
            await reranker.close()

    book = TrustBook()
    assert [run(best(book, f"when? {number}")) for number in range(4)] == [None] * 4
    assert (run(best(None, "when?")) or 0.0) > MIN_RELEVANCE > MIN_SCORE > 0.08
