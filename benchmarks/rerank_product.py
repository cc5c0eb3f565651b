"""The product's own reranker (`app.ranking.reranker`) as a schedule."""

from collections.abc import Mapping, Sequence

from app.backends.base import (
    ChatRequest,
    Conversation,
    Deadline,
    Decision,
    DecisionQuestion,
    Relevance,
    Reply,
    Scoring,
    Way,
)
from app.domain import Strategy
from app.ranking.cache import ScoreCache
from app.ranking.reranker import RankingTask, Reranker
from benchmarks.rerank_data import Task
from benchmarks.rerank_peers import TIMEOUT_S, Ports, Schedule

FENCE = "qzvkxwjp"
"""The same each time, so that a run can be repeated."""


class PortsReader:
    """A backend that reads for one ranking, over bare ports."""

    name = model = "simulated"
    reads_together = True

    def __init__(self, ports: Ports, way: Way) -> None:
        self._ports = ports
        self.way: Way = way

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str]) -> Scoring:
        """Raises ValueError when there are no log-probabilities."""
        if self._ports.scorer is None:
            raise ValueError("this needs log-probabilities")
        return await self._ports.scorer.score(prompts, labels, TIMEOUT_S)

    async def complete(self, request: ChatRequest) -> Reply:
        """A whole reply."""
        return await self._ports.complete(request, TIMEOUT_S)

    async def relevance(self, query: str, texts: Sequence[str]) -> Relevance:
        """Raises ValueError: a language model is no reranker."""
        raise ValueError("this needs a reranker")

    async def decide(self, context: str, questions: Sequence[DecisionQuestion]) -> Decision:
        """The probabilities of the labels, as it would say them of each passage alone."""
        return await self._ports.decide(context, questions, TIMEOUT_S)


def product(strategy: Strategy, way: Way) -> Schedule:
    """One strategy with a cold score cache, all candidates within its depth."""

    async def rank(ports: Ports, task: Task) -> list[str]:
        reranker = Reranker(ScoreCache(1_000), fence=lambda _: FENCE)
        asked = RankingTask(query=task.query, candidates=task.candidates, strategy=strategy, depth=len(task.candidates))
        ranking = await reranker.rank(asked, PortsReader(ports, way), Deadline(TIMEOUT_S))
        await reranker.close()
        return [place.id for place in ranking.order]

    return rank


BY_LABELS: Mapping[str, Schedule] = {
    f"ours: {strategy}": product(strategy, "scorer") for strategy in ("auto", "graded", "duel", "pointwise", "listwise")
}
BY_JUDGE: Mapping[str, Schedule] = {
    f"ours: {strategy}": product(strategy, "judge") for strategy in ("auto", "graded", "duel", "pointwise", "listwise")
}
