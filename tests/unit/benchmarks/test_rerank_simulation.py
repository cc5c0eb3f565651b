import asyncio
import math
from random import Random

import pytest

from app.backends.base import ChatRequest, Message
from app.domain import TokenCount
from app.errors import UpstreamTimeout
from app.ranking.models import LABELS, candidate_of
from app.ranking.prompts import BLANKS, grade_prompt, judge_request, order_request, window_request
from benchmarks import rerank_cascade
from benchmarks.harm import ATTACKS, JUDGES, Making, Trial
from benchmarks.rerank_data import Bm25Index, RerankSet, Task, task_of
from benchmarks.rerank_judge import SimulatedJudge, damaged
from benchmarks.rerank_opinion import NONE, SMALL, Noise, Opinion, Reader
from benchmarks.rerank_ours import ablation, rank_by
from benchmarks.rerank_peers import NEED_LOGPROBS, PEERS, Schedule
from benchmarks.rerank_product import BY_JUDGE, BY_LABELS, PortsReader
from benchmarks.rerank_runs import Run, difference, ndcg_of, result_of, run, simulate
from benchmarks.rerank_server import BLOCK_TOKENS, FLASH_LITE, INSTANT, RTX_4090, SimulatedServer, Speed
from benchmarks.rerank_wire import over_wire
from tests.fakes import virtual_time

FENCE = "qzvkxwjp"


def words(chance: Random, count: int) -> str:
    """Words that no two passages share."""
    return " ".join(f"w{chance.randrange(10**8)}" for _ in range(count))


def make_task(size: int = 60, length: int = 40, seed: int = 3) -> Task:
    """The grades are 0 to 3 for all alike; the first stage's order tells nothing."""
    chance = Random(seed)
    texts = [words(chance, length) for _ in range(size)]
    candidates = [candidate_of(id=f"p{n:03}", text=text, prior=1 - n / size) for n, text in enumerate(texts)]
    grades = {c.passage.id: n % 4 for n, c in enumerate(candidates) if n % 4}
    return task_of("t", "where does the heron nest in winter", candidates, grades)


def set_of(*tasks: Task) -> RerankSet:
    return RerankSet(name="made up", tasks=tasks, top_grade=3)


def judge_of(task: Task, noise: Noise, seed: int = 1, speed: Speed = INSTANT) -> SimulatedJudge:
    return SimulatedJudge(Opinion(task, 3, noise, seed), Reader(task), SimulatedServer(speed))


def simulated(task: Task, schedule: Schedule, noise: Noise, seed: int = 1, speed: Speed = INSTANT) -> Run:
    return simulate(set_of(task), task, schedule, Reader(task), noise, seed, speed)


def ours(name: str, *, scores: bool) -> Schedule:
    async def schedule(ports, task):
        return await rank_by(ports, task, ablation(scores=scores)[name])

    return schedule


SCHEDULES = {
    **PEERS,
    **{f"{name}, labels": schedule for name, schedule in BY_LABELS.items()},
    **{f"{name}, judge": schedule for name, schedule in BY_JUDGE.items()},
    **{f"ablated, {name}": ours(name, scores=scores) for scores in (True, False) for name in ablation(scores=scores)},
}


PURE = {*PEERS, *(name for name in SCHEDULES if "pointwise" in name or "listwise" in name or "c=0.0" in name)}
"""Those in which the first stage has no say."""


@pytest.mark.parametrize("name", sorted(PURE))
def test_no_noise_is_the_ideal_order(name: str) -> None:
    """A judge without errors lets every schedule that asks it alone put the best ten first."""
    task = make_task()
    assert ndcg_of([task], [simulated(task, SCHEDULES[name], NONE).order]) == [1.0]


@pytest.mark.parametrize("name", sorted(SCHEDULES.keys() - PURE))
def test_a_first_stage_that_knows_nothing_costs_little(name: str) -> None:
    """Fused with it, a judge without errors loses a few hundredths, the more the heavier it weighs."""
    task = make_task()
    ndcg = ndcg_of([task], [simulated(task, SCHEDULES[name], NONE).order])[0]
    assert (0.9 if "c=1.0" in name else 0.95) < ndcg <= 1.0
    assert ndcg < 1.0 or "c=1.0" not in name


@pytest.mark.parametrize("name", ["rankgpt", "first", "groups", "yes_no", "ours: duel, labels", "ours: graded, judge"])
def test_seed_decides(name: str) -> None:
    """The same seed gives the same run to the last token, another seed another order."""
    task = make_task()
    one, again, other = (simulated(task, SCHEDULES[name], SMALL, seed, RTX_4090) for seed in (1, 1, 2))
    assert one == again
    assert one.order != other.order


@pytest.mark.parametrize("name", SCHEDULES)
def test_noisy_judge_still_gives_permutations(name: str) -> None:
    """Whatever is damaged in the replies, everyone comes back once."""
    task = make_task(size=45)
    noise = Noise(error=1.0, crowd=0.5, malformed=1.0)
    done = simulated(task, SCHEDULES[name], noise)
    assert sorted(done.order) == [c.passage.id for c in task.candidates]


def test_more_noise_is_worse() -> None:
    """Quality falls as the judge errs more, in the mean of some seeds."""
    task = make_task(size=100)

    def quality(error: float) -> float:
        noise = Noise(error=error, shared=1.0, lexical=0.0)
        runs = [simulated(task, PEERS["yes_no"], noise, seed) for seed in range(8)]
        return math.fsum(ndcg_of([task], [run.order])[0] for run in runs) / len(runs)

    assert quality(0.0) > quality(1.0) > quality(3.0)


def test_one_list_is_lost_in() -> None:
    """A list of a hundred is noisier than windows of twenty."""
    task, noise = make_task(size=100), Noise(crowd=0.4, lost=0.006)
    long = [ndcg_of([task], [simulated(task, PEERS["one_list"], noise, seed).order])[0] for seed in range(8)]
    short = [ndcg_of([task], [simulated(task, PEERS["rankgpt"], noise, seed).order])[0] for seed in range(8)]
    assert math.fsum(long) < math.fsum(short)


def test_rankgpt_takes_nine_windows() -> None:
    """A hundred passages are nine calls one after another, each of twenty passages."""
    done = simulated(make_task(size=100), PEERS["rankgpt"], SMALL)
    assert (done.rounds, done.requests) == (9, 9)


def test_tdpart_asks_partitions_at_once() -> None:
    """A hundred passages with perfect comparisons: a head, five partitions side by side, and what has risen."""
    task = make_task(size=100)
    done = simulated(task, PEERS["tdpart"], NONE)
    assert done.rounds < done.requests
    assert done.requests >= 7


@pytest.mark.parametrize("name", ["ours: graded", "ours: pointwise"])
def test_graded_pass_is_one_round(name: str) -> None:
    """It writes one token for each passage and for each blank one."""
    done = simulated(make_task(size=100), BY_LABELS[name], SMALL)
    assert done.rounds == 1
    assert done.tokens.output == 102


def test_product_and_ablation_agree() -> None:
    """The steps put together for the ablation order as the product does."""
    task = make_task(size=100)
    for seed in range(3):
        for scores, product in ((True, BY_LABELS), (False, BY_JUDGE)):
            for name in ("graded", "duel"):
                noise = Noise(error=1.0, crowd=0.4, label_bias=0.5)
                whole = simulated(task, ours(name, scores=scores), noise, seed)
                assert whole.order == simulated(task, product[f"ours: {name}"], noise, seed).order


def test_reader_recognises_what_is_shown() -> None:
    """Passages are found in all of the product's prompts, in their order, under the names that they have there."""
    task = make_task(size=12)
    reader, texts = Reader(task), [c.passage.text for c in task.candidates]
    numbered = list(zip(range(12, 0, -1), texts, strict=True))
    for make in (judge_request, order_request, window_request):
        seen = reader.read(make(task.query, numbered, FENCE).messages[-1].content)
        assert [one.id for one in seen] == [c.passage.id for c in task.candidates]
        assert [int(one.name) for one in seen] == list(range(12, 0, -1))
    assert [one.id for one in reader.read(grade_prompt(task.query, texts[5], FENCE)[-1].content)] == ["p005"]
    assert not any(reader.read(grade_prompt(task.query, blank, FENCE)[-1].content) for blank in BLANKS)


def test_lines_of_a_passage_are_one() -> None:
    """A passage that is shown on several lines is one passage, and all of its lines count."""
    task = make_task(size=2, length=60)
    parts = task.candidates[1].passage.text.split()
    text = "\n".join(" ".join(parts[start : start + 20]) for start in (0, 20, 40))
    [seen] = Reader(task).read(text)
    assert seen.id == "p001"
    assert {0, 19, 20, 39, 40, 59} <= seen.places


def test_title_that_the_text_repeats_is_no_passage_of_its_own() -> None:
    """A title's line and the text below it are one passage, even where the text says the title again."""
    title = "the grey heron in winter"
    candidate = candidate_of(id="a", title=title, text=f"{words(Random(1), 20)} {title} {words(Random(2), 20)}")
    task = task_of("t", "q", [candidate], {"a": 3})
    [seen] = Reader(task).read(f"{title}\n{candidate.passage.text}")
    assert seen.places >= set(range(25))


def test_query_in_a_prompt_is_no_passage() -> None:
    """A line that repeats the query is not taken for the passage that holds the same words."""
    query = "where does the heron nest in winter"
    task = task_of("t", query, [candidate_of(id="a", text=f"People ask {query} and why it leaves at all")], {"a": 3})
    assert Reader(task).read(f"Query: {query}") == []


def test_evidence_that_is_cut_off_does_not_count() -> None:
    """A relevant passage is believed to be so only where its evidence is shown."""
    task = make_task(size=4, length=40)
    [passage] = [c.passage for c in task.candidates if task.grades.get(c.passage.id) == 3]
    place, parts = task.evidence[passage.id], passage.text.split()
    opinion, reader = Opinion(task, 3, NONE, 1), Reader(task)
    [whole] = reader.read(passage.text)
    [rest] = reader.read(" ".join(parts[place + 1 :] if place < 20 else parts[:place]))
    assert opinion.believed(whole, "alone") == 3.0
    assert opinion.believed(rest, "alone") < 1.5


def test_labels_of_a_perfect_judge() -> None:
    """The likeliest label is the grade, and the labels' probabilities sum to one, in any order of the labels."""
    task = make_task(size=4)
    judge = judge_of(task, NONE)
    for grade, candidate in enumerate(task.candidates):
        prompt = grade_prompt(task.query, candidate.passage.text, FENCE)
        forward = judge.first_tokens(prompt, LABELS)
        assert max(range(4), key=forward.__getitem__) == grade
        assert math.isclose(math.fsum(map(math.exp, forward)), 1.0)
        assert judge.first_tokens(prompt, LABELS[::-1]) == forward[::-1]


def test_blanks_show_the_bias_of_labels() -> None:
    """Without a passage, what a judge says is its bias: none if it has none, else the same for every blank."""
    task = make_task(size=4)
    blank, other = (grade_prompt(task.query, blank, FENCE) for blank in BLANKS)
    assert judge_of(task, NONE).first_tokens(blank, LABELS) == [-math.log(4)] * 4
    biased = judge_of(task, Noise(label_bias=1.0))
    assert biased.first_tokens(blank, LABELS) == biased.first_tokens(other, LABELS) != [-math.log(4)] * 4


def test_first_places_gain_from_primacy() -> None:
    """Among equals the first is named first, whoever it is."""
    task = task_of("t", "q", [candidate_of(id=str(n), text=words(Random(n), 20)) for n in range(5)], {})
    judge = judge_of(task, Noise(primacy=0.5))
    request = order_request("q", [(n + 1, c.passage.text) for n, c in enumerate(reversed(task.candidates))], FENCE)
    assert judge.reply(request) == '{"order": [1, 2, 3, 4, 5]}'


@pytest.mark.parametrize("constrained", [True, False])
def test_damage_changes_replies(constrained: bool) -> None:
    """Damaged replies differ from whole ones, and stay JSON where a schema constrains them."""
    text = '{"3": [1, 2], "2": [3, 14], "1": []}'
    spoilt = {damaged(text, Random(n), constrained=constrained) for n in range(40)}
    assert len(spoilt - {text}) > 5
    assert not constrained or all(one.endswith("}") for one in spoilt)


def test_cache_spares_whole_blocks_that_are_shared() -> None:
    """The second prompt pays for what differs from the first, in blocks of sixteen tokens."""

    async def serve() -> TokenCount:
        server = SimulatedServer(RTX_4090)
        shared = "s" * 640
        await server.serve([(Message(role="user", content=shared + "a" * 64),)], 1)
        return await server.serve([(Message(role="user", content=shared + "b" * 64),)], 1)

    tokens = virtual_time.run(serve())
    assert tokens.input == (640 + 64) // 4 + 5
    assert tokens.cached % BLOCK_TOKENS == 0
    assert 640 // 4 - BLOCK_TOKENS <= tokens.cached <= 640 // 4


def test_prompts_of_one_request_share_the_cache() -> None:
    """A prompt asked twice in a request is paid for once, but for its last token."""

    async def serve() -> TokenCount:
        prompt = (Message(role="user", content="x" * 4096),)
        return await SimulatedServer(RTX_4090).serve([prompt, prompt], 1)

    tokens = virtual_time.run(serve())
    assert tokens.output == 2
    assert tokens.input / 2 - BLOCK_TOKENS <= tokens.cached < tokens.input / 2


def test_gpu_takes_the_stated_time() -> None:
    """Prefills wait for one another, replies are written side by side."""

    async def serve() -> float:
        server = SimulatedServer(RTX_4090)
        prompts = [(Message(role="user", content=letter * 4 * 1195),) for letter in "ab"]
        await asyncio.gather(*(server.serve([prompt], 100) for prompt in prompts))
        return asyncio.get_running_loop().time()

    assert virtual_time.run(serve()) == pytest.approx(0.015 + 2 * 1200 / 12_000 + 100 * 0.0105)


def test_api_takes_so_many_at_a_time() -> None:
    """The ninth request waits until one of the first eight is answered, and none is spared by a cache."""

    async def serve() -> tuple[float, int]:
        server = SimulatedServer(FLASH_LITE)
        prompt = (Message(role="user", content="a" * 4 * 395),)
        counts = await asyncio.gather(*(server.serve([prompt], 30) for _ in range(9)))
        return asyncio.get_running_loop().time(), sum(count.cached for count in counts)

    seconds, cached = virtual_time.run(serve())
    assert seconds == pytest.approx(2 * (0.35 + 400 / 40_000 + 0.1))
    assert cached == 0


def test_too_slow_a_judge_is_a_timeout() -> None:
    """It raises what an adapter raises."""
    task = make_task(size=4)
    request = ChatRequest(messages=grade_prompt(task.query, task.candidates[0].passage.text, FENCE))

    async def ask() -> None:
        await judge_of(task, NONE, speed=FLASH_LITE).complete(request, 0.1)

    with pytest.raises(UpstreamTimeout):
        virtual_time.run(ask())


def test_reply_is_cut_at_its_limit() -> None:
    """A reply that is longer than was allowed ends there, and says so."""
    task = make_task(size=20)
    numbered = [(n, c.passage.text) for n, c in enumerate(task.candidates, 1)]
    whole = order_request(task.query, numbered, FENCE)
    short = ChatRequest(messages=whole.messages, schema=whole.schema, max_output_tokens=10)

    async def ask(request: ChatRequest) -> tuple[str, str, int]:
        reply = await judge_of(task, NONE).complete(request, 1.0)
        return reply.text, reply.finish_reason, reply.tokens.output

    full, why, _ = virtual_time.run(ask(whole))
    part, why_short, tokens = virtual_time.run(ask(short))
    assert (why, why_short, tokens) == ("stop", "length", 10)
    assert full.startswith(part)
    assert len(part) < len(full)


def test_lost_passage_is_noticed() -> None:
    """A schedule that drops a passage does not get a figure."""
    task = make_task(size=4)

    async def forgetful(ports, task):
        return [c.passage.id for c in task.candidates[1:]]

    with pytest.raises(AssertionError, match="permutation"):
        virtual_time.run(run(forgetful, judge_of(task, NONE), task))


def test_difference_has_an_interval() -> None:
    """The better of two schedules is so by an interval that holds the mean and leaves out zero."""
    tasks = [make_task(seed=seed) for seed in range(12)]
    tasks = [Task(id=str(n), query=t.query, candidates=t.candidates, grades=t.grades, evidence=t.evidence)
             for n, t in enumerate(tasks)]  # fmt: skip
    of = set_of(*tasks)
    good = result_of("good", of, [[simulated(t, PEERS["yes_no"], NONE) for t in tasks]])
    bad = result_of("bad", of, [[simulated(t, PEERS["yes_no"], Noise(error=3.0)) for t in tasks]])
    gain, low, high = difference(good, bad)
    assert 0 < low < gain < high
    assert difference(good, good) == (0.0, 0.0, 0.0)


def test_schedules_that_need_logprobs_say_so() -> None:
    """Before a server without log-probabilities exactly those fail."""
    task = make_task(size=5)
    for name, peer in PEERS.items():
        if name in NEED_LOGPROBS:
            with pytest.raises(ValueError, match="log-probabilities"):
                simulated(task, peer, NONE, speed=FLASH_LITE)
        else:
            assert simulated(task, peer, NONE, speed=FLASH_LITE).requests > 0


def test_bm25_finds_and_scales() -> None:
    """The best text comes first, scores are in [0,1], and texts without a hit are left out."""
    index = Bm25Index(["the heron nests in reeds", "a heron", "cars and roads"])
    found = index.best("heron nests", 10)
    assert [number for number, _ in found] == [0, 1]
    assert 1 >= found[0][1] > found[1][1] > 0


@pytest.mark.anyio
async def test_over_the_wire_is_as_in_process() -> None:
    """Through the real adapters and protocols every strategy gives the order that it gives in process."""
    text = await over_wire(set_of(make_task(size=30)))
    rows = [line for line in text.splitlines() if "ours:" in line]
    assert len(rows) == len(BY_LABELS) + len(BY_JUDGE)
    assert all(row.endswith("1 of 1") for row in rows)


def harmless(make: Making, of: RerankSet) -> bool:
    """Whether a judge costs no more than it may."""
    grading = lambda task, seed: PortsReader(make(of, task, seed, SMALL, True), "scorer")  # noqa: E731
    _, fine = virtual_time.run(Trial(of, grading, "graded", (1,)).row())
    return fine


def test_harm_is_told_from_none() -> None:
    """Coins and good judges cost nothing; who knows the controls and draws lots otherwise does, as nothing can tell."""
    of = set_of(*(sorted_task(seed) for seed in range(4)))
    assert all(harmless(JUDGES[name], of) for name in ("coin", "inverted", "perfect"))
    assert not harmless(ATTACKS["overfit"], of)


def sorted_task(seed: int) -> Task:
    """One whose first stage has the best first."""
    task = make_task(size=20, seed=seed)
    found = sorted(task.candidates, key=lambda one: -task.grades.get(one.passage.id, 0))
    candidates = [
        candidate_of(id=one.passage.id, text=one.passage.text, prior=1 - n / 20) for n, one in enumerate(found)
    ]
    return task_of(str(seed), task.query, candidates, task.grades)


def test_a_cascade_is_measured_with_trust() -> None:
    """Each schedule has a result, and both models together read less than the language model alone."""
    of = set_of(*(make_task(seed=seed) for seed in range(2)))
    results = rerank_cascade.measure(of, SMALL, (1,))
    assert results["cascade: graded"].mean > results["retrieval"].mean
    assert results["cascade: graded"].output < results["model: graded"].output
