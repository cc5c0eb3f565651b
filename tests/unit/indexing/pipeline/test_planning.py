import os
from pathlib import Path

import pytest

from indexing.documents import Document, document_key
from indexing.errors import UnreadableDocument
from indexing.pipeline.manifest import IndexedFile
from indexing.pipeline.planning import (
    Plan,
    distinct,
    document_record,
    file_document_id,
    hash_file,
    holders_of,
    make_plan,
    own_id,
    plan_rebuild,
)
from indexing.pipeline.sources import Source, discover
from indexing.readers.limits import ReadLimits
from indexing.readers.members import key_inside

LIMITS = ReadLimits(max_bytes=1000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text(f"text of {name}")
    return tmp_path


def known(*paths: Path) -> dict[str, str]:
    """These files as a finished run recorded them."""
    return {str(path): hash_file(path, LIMITS)[0] for path in paths}


def plan(folder: Path, finished: dict[str, str], unfinished: frozenset[str] = frozenset()) -> Plan:
    found = discover([str(folder)], folder)
    return make_plan(found.sources, finished, finished.keys() | unfinished, found.covers, unfinished, LIMITS)


def names(sources: tuple[Source, ...]) -> list[str]:
    return [source.name for source in sources]


def test_files_are_told_apart_by_their_content(folder: Path) -> None:
    """New, changed, unchanged and gone files each go where they belong; a touched file is unchanged."""
    finished = known(folder / "a.txt", folder / "b.txt") | known(folder / "c.txt")
    (folder / "a.txt").touch()
    (folder / "b.txt").write_text("other text")
    (folder / "c.txt").unlink()
    (folder / "d.txt").write_text("new")
    made = plan(folder, finished)
    assert [(work.name, work.bytes) for work in made.work] == [("b.txt", 10), ("d.txt", 3)]
    assert made.changed == 1
    assert (names(made.unchanged), made.gone) == (["a.txt"], (str(folder / "c.txt"),))


def test_a_file_that_is_there_and_cannot_be_opened_is_not_gone(folder: Path) -> None:
    """It is unreadable, with its reason: too large, a pipe, a dangling link."""
    finished = known(folder / "a.txt", folder / "b.txt", folder / "c.txt")
    (folder / "a.txt").write_bytes(b"x" * 1001)
    for name in ("b.txt", "c.txt"):
        (folder / name).unlink()
    os.mkfifo(folder / "pipe")
    (folder / "b.txt").symlink_to(folder / "pipe")
    (folder / "c.txt").symlink_to(folder / "nowhere")
    made = plan(folder, finished)
    assert [(source.name, why.reason) for source, why in made.unreadable] == [
        ("a.txt", "too_large"),
        ("b.txt", "not_a_file"),
        ("c.txt", "not_found"),
    ]
    assert (made.work, made.gone) == ((), ())


def test_a_missing_file_outside_the_inputs_is_gone_only_if_it_was_left_half_done(folder: Path) -> None:
    """What a run does not cover it leaves alone, but it clears up after a killed one."""
    outside, half_done = "/nowhere/kept.txt", "/nowhere/half.txt"
    finished = {outside: "h"}
    assert plan(folder, finished, frozenset({half_done})).gone == (half_done,)


def test_a_rebuild_reads_every_file_that_is_still_there(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The files found, and earlier ones of other runs under the names they had."""
    other = tmp_path_factory.mktemp("other") / "deep.txt"
    other.write_text("elsewhere")
    found = discover([str(folder)], folder)
    names = {str(other): "sub/deep.txt", str(folder / "a.txt"): "a.txt", "/nowhere/x.txt": "x.txt"}
    earlier = {path: IndexedFile(name) for path, name in names.items()}
    made = plan_rebuild(found.sources, earlier, LIMITS)
    assert [work.name for work in made.work] == ["a.txt", "b.txt", "c.txt", "sub/deep.txt"]
    assert made.gone == ("/nowhere/x.txt",)


def test_a_record_is_known_by_its_own_id_or_by_its_place(folder: Path) -> None:
    """An id of its own is the document's id; a place counts only within its file."""
    (work, *_) = plan(folder, {}).work
    assert document_record(work, Document(text="t", key="doc-7")).id == "doc-7"
    forged = document_record(work, Document(text="t", key=document_key("tenant", "doc-7")))
    assert (forged.tenant, forged.id != document_key("tenant", "doc-7")) == ("", True)
    assert document_record(work, Document(text="t", key="#7")).id == file_document_id(str(folder / "a.txt"), "#7")
    assert (own_id(Document(text="t")), own_id(Document(text="t", key="#1"))) == ("", "")


def test_a_file_in_a_file_is_known_by_what_holds_it() -> None:
    """Its id begins with that of each file that it is in; names with the signs of keys are no way out."""
    keys = [key_inside("b.zip", key_inside("c#/d.txt")), key_inside("rows.jsonl", "x#y"), key_inside("1", "#/a.pdf")]
    assert keys == ["#/b.zip#/c%23/d.txt", "#/rows.jsonl#x%23y", "#/1#/a.pdf"]
    root = file_document_id("a.zip", "")
    for key in keys:
        held = file_document_id("a.zip", key)
        assert holders_of(held) == [root, file_document_id("a.zip", key.rpartition("#")[0])]
    assert [holders_of(one) for one in (root, "doc.1", f"{root}.", f"{root}.{'g' * 16}")] == [[], [], [], []]


def test_a_directory_is_no_file(folder: Path) -> None:
    """The reason says so."""
    with pytest.raises(UnreadableDocument, match="not a file") as caught:
        hash_file(folder, LIMITS)
    assert caught.value.reason == "not_a_file"


def distinct_names(base: Path, *inputs: str, taken: dict[str, str] | None = None) -> list[str]:
    """What the files of these inputs are called."""
    paths = {str(base / path): IndexedFile(name) for path, name in (taken or {}).items()}
    return [source.name for source in distinct(discover(inputs, base).sources, paths)]


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """x/docs, y/docs and z, with a file of the same name in each."""
    for folder in ("x/docs", "y/docs", "z"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.txt").write_text(folder)
    (tmp_path / "z" / "b.txt").write_text("b")
    return tmp_path


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (("z",), ["a.txt", "b.txt"]),
        (("x/docs", "z"), ["docs/a.txt", "z/a.txt", "b.txt"]),
        (("x/docs", "y/docs"), ["x/docs/a.txt", "y/docs/a.txt"]),
        (("x", "y"), ["x/docs/a.txt", "y/docs/a.txt"]),
        (("x/docs/a.txt", "z/a.txt"), ["docs/a.txt", "z/a.txt"]),
        (("x/docs/*.txt", "z/a*"), ["docs/a.txt", "z/a.txt"]),
        ((".",), ["x/docs/a.txt", "y/docs/a.txt", "z/a.txt", "z/b.txt"]),
    ],
)
def test_names_have_as_many_folders_as_tell_them_apart(
    twins: Path, inputs: tuple[str, ...], expected: list[str]
) -> None:
    """None where the names differ by themselves."""
    assert distinct_names(twins, *inputs) == expected


def test_a_name_that_is_known_stays_and_no_other_file_gets_it(twins: Path) -> None:
    """Also where the file is now an input of another kind; two that share a name are told apart when they are read."""
    assert distinct_names(twins, "z", taken={"z/a.txt": "a.txt"}) == ["a.txt", "b.txt"]
    assert distinct_names(twins, ".", taken={"z/a.txt": "a.txt"})[2] == "a.txt"
    assert distinct_names(twins, "z", taken={"x/docs/a.txt": "a.txt"}) == ["z/a.txt", "b.txt"]
    assert distinct_names(twins, "z", taken={"x/docs/a.txt": "a.txt", "z/a.txt": "a.txt"}) == ["z/a.txt", "b.txt"]
    assert distinct_names(twins, "z", taken={"gone/a.txt": "a.txt"}) == ["a.txt", "b.txt"]


def test_no_name_shows_folders_that_nobody_wrote(twins: Path) -> None:
    """But for the nearest one; then a number tells them apart."""
    taken = {str(twins / "z/a.txt"): IndexedFile("a.txt"), str(twins / "y/docs/a.txt"): IndexedFile("docs/a.txt")}
    [source] = distinct(discover(["."], twins / "x" / "docs").sources, taken)
    assert source.name == "docs/a.txt (2)"
