"""A report as rows of text."""

from typing import Literal, get_args

import msgspec

from app.evaluation.models import BackendReport, EvalOptions, Fate, Figure, Gate, Report
from app.evaluation.report import markdown, notes, rows

NONE = BackendReport(
    backend="none",
    model=None,
    questions=200,
    failed={},
    measures={
        "nDCG@10": Figure(mean=0.8, low=0.75, high=1.0, n=200),
        "degraded": Figure(mean=0.0, low=0.0, high=0.0, n=200),
    },
    gains={},
    latency_ms={"total": {"p50": 12.4, "p95": 1234.5}},
    requests=0,
    input_tokens=0,
    cached_tokens=0,
    output_tokens=0,
    cost_usd=0.0,
    usd_per_1000=0.0,
    answered_by={},
)
GEMMA = msgspec.structs.replace(
    NONE,
    backend="gemma",
    model="gemma|3",
    questions=198,
    failed={"timeout": 2},
    measures={**NONE.measures, "nDCG@10": Figure(mean=0.9, low=0.85, high=0.95, n=198)},
    gains={"nDCG@10": Figure(mean=-0.05, low=-0.1, high=-0.01, n=198)},
    latency_ms={**NONE.latency_ms, "rank": {"p50": 100.0, "p95": 200.0}},
    input_tokens=123_456,
    usd_per_1000=0.25,
)
REPORT = Report(
    data="mine",
    digest="0123456789abcdef0123",
    options=EvalOptions(backends=("gemma",)),
    documents=1000,
    answerable=200,
    unanswerable=0,
    backends=(NONE, GEMMA),
    notes=("3 of 9 relevant documents are not in the corpus and cannot be found",),
)


def cells(report: Report) -> dict[str, tuple[str, ...]]:
    return {name.strip(): texts for name, texts, _ in rows(report)}


def test_measures_have_intervals_and_gains() -> None:
    """The gain stands below its measure, with a star where it is sure; shares are in percent."""
    found = cells(REPORT)
    assert found["nDCG@10"] == ("0.800 [.750 1.00]", "0.900 [.850 .950]")
    assert found["against none"] == ("", "-0.050* [-.100 -.010]")
    assert found["degraded"] == ("0.0% [0.0 0.0]", "0.0% [0.0 0.0]")
    assert [name for name, _, _ in rows(REPORT)][:2] == ["nDCG@10", "  against none"]
    unsure = msgspec.structs.replace(GEMMA, gains={"nDCG@10": Figure(mean=0.05, low=-0.01, high=0.1, n=9)})
    assert cells(msgspec.structs.replace(REPORT, backends=(NONE, unsure)))["against none"][1] == "+0.050 [-.010 +.100]"


def test_a_gate_has_two_rows() -> None:
    """Only where unanswerable questions were asked."""
    assert not any("best score" in name for name in cells(REPORT))
    gate = Gate(auroc=0.75, false_acceptance=0.515, threshold=0.25, answerable=90, unanswerable=80)
    found = cells(msgspec.structs.replace(REPORT, backends=(NONE, msgspec.structs.replace(GEMMA, gate=gate))))
    assert found["best score: AUROC"] == ("-", "0.750")
    assert found["best score: false acceptance at 90% recall"] == ("-", "51.5% (from 0.250)")


def test_what_it_took_is_told() -> None:
    """Latencies, dollars, tokens, and how many questions it rests on."""
    found = cells(REPORT)
    assert found["rank ms, p50 / p95"] == ("-", "100 / 200")
    assert found["total ms, p50 / p95"][0] == "12 / 1,234"
    assert found["$ per 1,000 questions"] == ("0.0000", "0.2500")
    assert found["tokens in"] == ("0", "123,456")
    assert found["failed"] == ("0", "2")


def test_notes_say_how_to_read_it() -> None:
    """What is missing, what failed, who answered in whose place, and how citations were judged."""
    told = notes(REPORT)
    assert told[0] == REPORT.notes[0]
    assert "gemma: 2 timeout are left out" in told[1]
    assert not any("ALCE" in note for note in told)
    other = msgspec.structs.replace(GEMMA, answered_by={"gemma": 1, "extractive": 9})
    answered = msgspec.structs.replace(REPORT, options=EvalOptions(answers=True, check="model"), backends=(NONE, other))
    assert "gemma: answers were written 9 by extractive" in notes(answered)
    assert "by the model that checks citations" in notes(answered)[-1]


def test_markdown_is_a_table() -> None:
    """As many cells in every line; what would end a cell is escaped."""
    page = markdown(REPORT)
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in table} == {4}
    assert r"gemma (gemma\|3)" in table[0]
    assert "200 questions on 1,000 documents; seed 1, data 0123456789abcdef." in page
    mine = msgspec.structs.replace(REPORT, documents=None, unanswerable=5, options=EvalOptions(collection="docs"))
    assert "200 questions and 5 unanswerable ones on the collection `docs`" in markdown(mine)


def test_what_became_of_answers_is_told() -> None:
    """Counts and shares side by side, and a note whether recall or ranking is the limit."""

    def with_fates(one: BackendReport, limit: Literal["recall", "ranking"] | None, **counts: int) -> BackendReport:
        whole = sum(counts.values())
        fates = {fate: {"count": counts.get(fate, 0), "share": counts.get(fate, 0) / whole} for fate in get_args(Fate)}
        return msgspec.structs.replace(one, fates=fates, limited_by=limit)

    none = with_fates(NONE, "ranking", right=150, not_read=40, not_found=10)
    gemma = with_fates(GEMMA, "recall", right=185, misjudged=3, not_found=10)
    report = msgspec.structs.replace(REPORT, backends=(none, gemma))
    found = cells(report)
    assert found["answer: comes first"] == ("150 (75.0%)", "185 (93.4%)")
    assert found["answer: read, not first"] == ("0 (0.0%)", "3 (1.5%)")
    assert found["answer: not read"] == ("40 (20.0%)", "0 (0.0%)")
    assert found["answer: no candidate"] == ("10 (5.0%)", "10 (5.1%)")
    assert [note.partition(";")[0] for note in notes(report) if "limit" in note] == [
        "none: ranking is the limit: of 50 answers that do not come first, 10 are not among the candidates",
        "gemma: recall is the limit: of 13 answers that do not come first, 10 are not among the candidates",
    ]
    perfect = msgspec.structs.replace(REPORT, backends=(with_fates(NONE, None, right=200),))
    assert not any("limit" in note for note in notes(perfect))
    assert not any(name.startswith("answer") for name in cells(REPORT))
