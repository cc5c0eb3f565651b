"""What follows from what came of the questions."""

import math

import msgspec
import pytest

from app.domain import Answer, BackendUse, Citation, UnsupportedSpan
from app.evaluation.data import EvalQuestion
from app.evaluation.models import Fate
from app.evaluation.records import AnswerRecord, Outcome, answer_record, fate_of, measures_of, retrieval
from app.ranking.models import Ranked, candidate_of
from indexing.documents import Candidate, Document
from tests.fakes.answering import hit

pytestmark = pytest.mark.numeric

GRADES = {"a": {"x": 2, "y": 1}, "b": {"z": 1}}


def test_retrieval_is_measured_by_hand() -> None:
    """nDCG with linear gain, recall among the first k, the reciprocal place of the first relevant one."""
    documents = ("n1", "y", "x", *(f"n{place}" for place in range(2, 9)))
    outcomes = {
        "a": Outcome(id="a", documents=documents),
        "b": Outcome(id="b", documents=("n1",)),
        "unjudged": Outcome(id="unjudged", documents=("x",)),
    }
    found = retrieval(outcomes, GRADES, k=2)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert list(found) == ["nDCG@10", "recall@2", "MRR@10"]
    assert found["nDCG@10"] == {"a": pytest.approx((1 / math.log2(3) + 2 / math.log2(4)) / ideal), "b": 0.0}
    assert found["recall@2"] == {"a": 0.5, "b": 0.0}
    assert found["MRR@10"] == {"a": 0.5, "b": 0.0}
    assert retrieval({"unjudged": Outcome(id="unjudged")}, GRADES, k=2) == {}


def test_an_answer_is_measures_of() -> None:
    """Text, quotes and citations of those that were answered; silence where an answer was known counts as wrong."""
    questions = {
        "right": EvalQuestion(id="right", text="?", answers=("nine",)),
        "silent": EvalQuestion(id="silent", text="?", answers=("nine",)),
        "free": EvalQuestion(id="free", text="?"),
        "none": EvalQuestion(id="none", text="?", answerable=False),
    }
    said = AnswerRecord(
        text="At nine [1].",
        abstained=False,
        quotes=("Opens at nine.", "x"),
        verbatim=(True, False),
        sentences=((True, False), ()),
        used="m",
    )
    silent = AnswerRecord(text="I cannot say nine", abstained=True, quotes=(), verbatim=(), sentences=(), used="m")
    replies = {"right": said, "silent": silent, "free": silent, "none": said}
    outcomes = {key: Outcome(id=key, reply=reply, degraded=key == "free") for key, reply in replies.items()}
    found = measures_of(outcomes, questions, {}, k=5)
    assert found["F1"] == {"right": pytest.approx(2 / 3), "silent": 0.0}
    assert found["exact match"] == {"right": 0.0, "silent": 0.0}
    assert found["gold in a quote"] == {"right": 1.0, "silent": 0.0}
    assert found["citation recall"] == {"right": 0.5, "none": 0.5}
    assert found["citation precision"] == {"right": 0.5, "none": 0.5}
    assert found["quotes verbatim"] == {"right": 0.5, "none": 0.5}
    assert found["abstained, answerable"] == {"right": 0.0, "silent": 1.0, "free": 1.0}
    assert found["abstained, unanswerable"] == {"none": 0.0}
    assert found["degraded"] == {"right": 0.0, "silent": 0.0, "free": 1.0, "none": 0.0}


def test_an_answer_is_taken_apart() -> None:
    """Citations by sentence; an unsupported one has none that holds; a quote is compared with the passage's text."""
    passage = hit("Dental cover starts at once.", number=0, start=100)

    def citation(sentence: tuple[int, int], quote: str, *, verified: bool) -> Citation:
        return Citation(
            marker=1, result_id="p0", document_id="d0", source="", page=None, start=100, end=106, quote=quote,
            answer_start=sentence[0], answer_end=sentence[1], verified=verified,
        )  # fmt: skip

    answer = Answer(
        answer="Text",
        answerable=True,
        abstain_reason=None,
        citations=(
            citation((0, 9), "Dental", verified=True),
            citation((0, 9), "dental", verified=False),
            citation((20, 30), "Dental", verified=True),
        ),
        unsupported=(UnsupportedSpan(10, 19), UnsupportedSpan(20, 30)),
        results=(passage,),
        backend=BackendUse(requested="m", used="m"),
        answer_backend=BackendUse(requested="m", used="extractive"),
    )
    found = answer_record(answer)
    assert found.sentences == ((True, False), (False,), ())
    assert found.verbatim == (True, False, True)
    assert found.quotes == ("Dental", "dental", "Dental")
    assert (found.used, found.abstained) == ("extractive", False)


def ordered(*places: tuple[str, str, bool]) -> list[tuple[Candidate, Ranked]]:
    """Passages that are whole documents, by (id, text, whether a model has read it), in order."""
    return [
        (msgspec.structs.replace(candidate, passage=msgspec.structs.replace(candidate.passage, document_id=key)), place)
        for key, text, read in places
        for candidate, place in [(candidate_of(key, text), Ranked(id=key, prior=0.5, read=read))]
    ]


@pytest.mark.parametrize(
    ("order", "fate"),
    [
        (ordered(("x", "", True), ("b", "", True)), "right"),
        (ordered(("a", "", True), ("y", "", False)), "not_read"),
        (ordered(("a", "", True), ("x", "", True)), "misjudged"),
        (ordered(("a", "", True), ("x", "", False), ("y", "", True)), "misjudged"),
        (ordered(("a", "", True), ("b", "", True)), "not_found"),
        ([], "not_found"),
    ],
)
def test_what_became_of_an_answer(order: list[tuple[Candidate, Ranked]], fate: Fate) -> None:
    """First, read and yet not first, not read, or no candidate; the best place of any relevant document counts."""
    assert fate_of(EvalQuestion(id="q", text="?"), ("x", "y"), order, {}) == fate
    assert fate_of(EvalQuestion(id="q", text="?"), (), order, {}) is None


def test_the_passage_that_holds_the_answer_is_meant() -> None:
    """Where a correct answer stands in a relevant document as it is spelled, another passage of it does not count."""
    order = ordered(("x", "The office.", True), ("x", "It opens at NINE.", False))
    question = EvalQuestion(id="q", text="?", answers=("nine",))
    assert fate_of(question, ("x",), order, {"x": Document(text="The office. It opens at NINE.")}) == "not_read"
    assert fate_of(question, ("x",), order, {"x": Document(text="The office. It opens at 9.")}) == "right"
    assert fate_of(question, ("x",), order, {}) == "right"
