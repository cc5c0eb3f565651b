"""Folders of documents, questions and judgements."""

import gzip
from pathlib import Path

import pytest

from app.errors import InvalidRequest
from app.evaluation.data import DataSet, EvalQuestion, read_qrels, read_rows, sample
from tests.fakes.beir import PLACES, beir_folder


def test_a_folder_is_read(tmp_path: Path) -> None:
    """Documents, questions with their answers, grades, and questions without an answer."""
    data = DataSet(beir_folder(tmp_path))
    assert data.documents["tower-Ulm"].title == "Ulm"
    assert data.questions["q-Ulm"] == EvalQuestion(
        id="q-Ulm", text="How high is the tower of Ulm?", answers=("11 metres",)
    )
    assert data.grades["q-Bonn"] == {"tower-Bonn": 1}
    assert [asked.id for asked in data.judged] == [f"q-{place}" for place in PLACES]
    assert not any(asked.answerable for asked in data.unanswerable.values())


def test_files_may_be_packed_lie_in_qrels_and_lack_headings(tmp_path: Path) -> None:
    """As BEIR ships them: NAME.gz, qrels/test.tsv; with a byte order mark, Windows' line ends, ids that are numbers."""
    folder = beir_folder(tmp_path, queries='\ufeff{"_id": 7, "text": "why?"}\r\n\r\n', qrels="")
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress((folder / "corpus.jsonl").read_bytes()))
    (folder / "corpus.jsonl").unlink()
    (folder / "qrels.tsv").unlink()
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("7\ttower-Ulm\t2\r\n7\tmayor-Ulm\t0\r\n")
    data = DataSet(folder)
    assert len(data.documents) == 2 * len(PLACES)
    assert data.questions["7"].answers == ()
    assert read_qrels(folder) == {"7": {"tower-Ulm": 2}}
    assert len(list(read_rows(folder / "corpus.jsonl"))) == 2 * len(PLACES)


def test_doubtful_labels_do_not_count(tmp_path: Path) -> None:
    """Of unanswerable questions that say who labelled them, only gold ones are asked."""
    rows = [{"_id": "a", "text": "x", "label_source": "gold"}, {"_id": "b", "text": "x", "label_source": "model"}]
    assert list(DataSet(beir_folder(tmp_path, unanswerable=rows)).unanswerable) == ["a"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("corpus", '{"_id": "a", "text": "x"}\n{"_id": "b"}\n', "jsonl, line 2: Object missing required field text"),
        ("corpus", '{"_id": "a", "text": 5}\n', "corpus.jsonl, line 1: text: Expected str, got int"),
        ("corpus", '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "x"}\n', "line 2: _id 'a' is not unique"),
        ("corpus", '{"_id": "a", "text"\n', "corpus.jsonl, line 1: not a JSON object"),
        ("corpus", "[1]\n", "line 1: Expected object, got array"),
        ("corpus", "\n\n", "corpus.jsonl is empty"),
        ("queries", '{"_id": "a", "text": "x", "answers": "y"}\n', "queries.jsonl, line 1: answers: Expected array"),
        ("qrels", "a b c\n", "qrels.tsv, line 1: 1 columns instead of 3; expected judgements"),
        ("qrels", "q\td\t1\nq\te\thigh\n", "qrels.tsv, line 2: the grade 'high' is not an integer"),
        ("qrels", "nobody\td\t1\n", "no question of queries.jsonl has a relevant document"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path: Path, name: str, content: str, said: str) -> None:
    """File, line, field, and what would be right."""
    data = DataSet(beir_folder(tmp_path, **{name: content}))
    with pytest.raises(InvalidRequest) as raised:
        read_all(data)
    assert said in str(raised.value)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    """No folder, no file, no UTF-8, a packed file that is cut off."""
    with pytest.raises(InvalidRequest, match=r"is not a directory; specify one with corpus\.jsonl"):
        DataSet(tmp_path / "nowhere")
    folder = beir_folder(tmp_path)
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "a", "text": "x"}\n{"_id": "b", "text": "\xe4"}\n')
    with pytest.raises(InvalidRequest, match="line 2: not valid UTF-8"):
        assert DataSet(folder).documents
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(InvalidRequest, match=r"has no corpus\.jsonl: documents"):
        assert DataSet(folder).documents
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(b"x" * 999)[:-9])
    with pytest.raises(InvalidRequest, match="cannot be read: it is truncated"):
        assert DataSet(folder).documents


def test_the_digest_is_of_all_files(tmp_path: Path) -> None:
    """Whatever changes, changes it; the folder's name does not."""
    one, same = (DataSet(beir_folder(tmp_path / name)).digest for name in ("one", "same"))
    others = {
        DataSet(beir_folder(tmp_path / name, **{name: '{"_id": "a", "text": "x"}\n'})).digest
        for name in ("corpus", "queries", "qrels", "unanswerable")
    }
    assert one == same
    assert len({one, *others}) == 5


def test_a_sample_is_drawn_by_its_seed() -> None:
    """The same for the same seed, in the questions' own order; all of few; and a larger one holds it."""
    questions = [EvalQuestion(id=str(number), text="x") for number in range(50)]
    drawn = sample(questions, 10, seed=1)
    assert drawn == sample(questions, 10, seed=1) != sample(questions, 10, seed=2)
    assert [int(asked.id) for asked in drawn] == sorted(int(asked.id) for asked in drawn)
    assert len(set(drawn)) == 10
    assert set(drawn) < set(sample(questions, 20, seed=1))
    assert sample(questions, 50, seed=1) == tuple(questions)


def read_all(data: DataSet) -> None:
    """Every file."""
    assert data.documents
    assert data.judged
