"""The product's own steps put together with every knob in reach, so that each can be turned off: for the ablation.

`app.ranking.reranker` is what runs in the service; here are the same prompts, grades, fusion and duel without its
deadlines, caches and failures.
"""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from app.backends.base import Conversation, LabelScores, log_evidence, softmax
from app.ranking.calls import interleave
from app.ranking.models import LABELS, Grade, Ranked
from app.ranking.passages import PASSAGE_TOKENS, prepare
from app.ranking.prompts import (
    BLANKS,
    LETTERS,
    duel_prompt,
    grade_prompt,
    judge_request,
    order_request,
)
from app.ranking.reply_parser import read_grades, read_order
from app.ranking.scoring import (
    BETA,
    DUEL_WEIGHT,
    PRIOR_WEIGHT,
    UNBIASED,
    WINDOW,
    apply_duel,
    bias_of,
    combine,
    duel_window,
    fit_prior,
    fuse_orders,
    grade_of,
    grades_of,
    in_order,
    preferences,
    prior_scores,
    reassign,
    top_k,
    worth_reading,
)
from benchmarks.rerank_data import Task
from benchmarks.rerank_peers import TIMEOUT_S, Ports
from benchmarks.rerank_product import FENCE


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with a list. `judge`: structured replies instead of log-probabilities, in blocks of `group`.

    `first` passages are read at once, the others only while one of them may still enter the top `k` (0: all at once).
    """

    judge: bool = False
    duel: bool = False
    prior_weight: float = PRIOR_WEIGHT
    beta: float = BETA
    labels: tuple[str, ...] = LABELS
    tokens: int = PASSAGE_TOKENS
    group: int = 25
    first: int = 0
    window: int = WINDOW
    duel_weight: float = DUEL_WEIGHT
    k: int = 10


async def rank_by(ports: Ports, task: Task, recipe: Recipe) -> list[str]:
    """All ids, best first."""
    prepared = {p.id: p for p in prepare(task.query, task.candidates, tokens=recipe.tokens)}
    grades = await _grades(ports, task, recipe, list(prepared.values()))
    priors = {p.id: p.prior for p in prepared.values()}
    prior_zs = dict(zip(priors, prior_scores(list(priors.values())), strict=True))
    zs = {name: combine(grade.expected, prior_zs[name], recipe.prior_weight) for name, grade in grades.items()}
    window = duel_window(in_order(zs, priors), grades, top_k(grades, recipe.k)[1], recipe.window) if recipe.duel else []
    if window:
        zs = await _duel(ports, task, recipe, zs, [prepared[name] for name in window])
    order = in_order(zs, priors) + [name for name in prepared if name not in zs]
    return [name for leader in order for name in (leader, *prepared[leader].duplicates)]


async def _grades(ports: Ports, task: Task, recipe: Recipe, passages: Sequence[Ranked]) -> dict[str, Grade]:
    """Of all, or of as many as are worth it, in two rounds at most; nothing is asked twice."""
    ask = _judged if recipe.judge else _scored
    first = recipe.first or len(passages)
    grades = await ask(ports, task, recipe, passages[:first])
    priors = {p.id: p.prior for p in passages}
    model = fit_prior((priors[name], grade.expected) for name, grade in grades.items())
    unread = {p.id: p.prior for p in passages[first:]}
    worth = set(worth_reading(unread, model, top_k(grades, recipe.k)[0]))
    if worth:
        grades |= await ask(ports, task, recipe, [p for p in passages if p.id in worth])
    return grades


async def _scored(ports: Ports, task: Task, recipe: Recipe, passages: Sequence[Ranked]) -> dict[str, Grade]:
    blanks = [grade_prompt(task.query, blank, FENCE) for blank in BLANKS] if recipe.beta else []
    prompts = [*blanks, *(grade_prompt(task.query, p.text, FENCE) for p in passages)]
    scores = await _label_scores(ports, prompts, recipe.labels)
    bias = bias_of(scores[: len(blanks)]) if recipe.labels == LABELS else UNBIASED
    found = {}
    for passage, told in zip(passages, scores[len(blanks) :], strict=True):
        grade = _grade(told, bias, recipe) if told else None
        if grade is not None:
            found[passage.id] = grade
    return found


def _grade(scores: LabelScores, bias: Sequence[float], recipe: Recipe) -> Grade | None:
    """The product's with its four labels; the same without bias removal for two or three."""
    if recipe.labels == LABELS:
        return grade_of(scores, bias, recipe.beta)
    evidence = log_evidence(scores)
    if evidence is None:
        return None
    shares, top = softmax(evidence), len(recipe.labels) - 1
    expected = sum(share * grade for grade, share in enumerate(shares)) / top
    variance = sum(share * (grade / top - expected) ** 2 for grade, share in enumerate(shares))
    return Grade(expected=min(1.0, expected), variance=min(0.25, variance))


async def _judged(ports: Ports, task: Task, recipe: Recipe, passages: Sequence[Ranked]) -> dict[str, Grade]:
    blocks = interleave(passages, recipe.group)
    requests = [judge_request(task.query, [(n, p.text) for n, p in enumerate(b, 1)], FENCE) for b in blocks]
    replies = await asyncio.gather(*(ports.complete(request, TIMEOUT_S) for request in requests))
    found: dict[str, Grade] = {}
    for block, reply in zip(blocks, replies, strict=True):
        read = read_grades(reply.text, range(1, len(block) + 1))
        known = range(1, len(block) + 1) if read.complete else [n for row in read.listed.values() for n in row]
        found |= {block[n - 1].id: grade for n, grade in grades_of(read.listed, known).items()}
    return found


async def _duel(
    ports: Ports, task: Task, recipe: Recipe, zs: Mapping[str, float], passages: Sequence[Ranked]
) -> dict[str, float]:
    window, texts = [p.id for p in passages], [p.text for p in passages]
    if recipe.judge:
        request = order_request(task.query, list(enumerate(texts, 1)), FENCE)
        reply = await ports.complete(request, TIMEOUT_S)
        order, _ = read_order(reply.text, range(1, len(window) + 1))
        judged = [window[n - 1] for n in order] or window
        return reassign(zs, fuse_orders(window, judged))
    prompts = [duel_prompt(task.query, shown, FENCE) for shown in (texts, texts[::-1])]
    forward, backward = await _label_scores(ports, prompts, LETTERS[: len(window)])
    told = preferences(forward, backward)
    return dict(zs) if told is None else apply_duel(zs, window, [recipe.duel_weight / DUEL_WEIGHT * u for u in told])


async def _label_scores(
    ports: Ports, prompts: Sequence[Conversation], labels: Sequence[str]
) -> tuple[LabelScores | None, ...]:
    if ports.scorer is None:
        raise ValueError("this recipe needs log-probabilities")
    return (await ports.scorer.score(prompts, labels, TIMEOUT_S)).scores


def ablation(*, scores: bool) -> dict[str, Recipe]:
    """One step changed at a time, the whole first."""
    whole = Recipe(judge=not scores)
    rows = {"graded": whole, "duel": _but(whole, duel=True)}
    rows |= {f"fusion c={c}": _but(whole, prior_weight=c) for c in (0.0, 0.25, 1.0)}
    rows |= {f"read {first} first": _but(whole, first=first) for first in (20, 50, 80)}
    rows |= {f"duel of {size}": _but(whole, duel=True, window=size) for size in (6, 15)}
    rows |= {f"cut at {n}": _but(whole, tokens=n) for n in (160, 256, 10_000)}
    if not scores:
        return rows | {f"groups of {size}": _but(whole, group=size) for size in (8, 12, 16)}
    rows |= {f"duel, weight {w}": _but(whole, duel=True, duel_weight=w) for w in (0.25, 1.0)}
    rows |= {f"bias removal beta={beta}": _but(whole, beta=beta) for beta in (0.0, 1.0)}
    return rows | {f"{n} labels": _but(whole, labels=LABELS[:n], beta=0.0) for n in (2, 3)}


def _but(recipe: Recipe, **changed: object) -> Recipe:
    return msgspec.structs.replace(recipe, **changed)
