"""What the inputs of a run stand for."""

import os
from pathlib import Path

import pytest

from indexing.pipeline.sources import Discovery, Scope, discover


def make(root: Path, *names: str) -> None:
    """Small files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")


def names(found: Discovery) -> list[str]:
    """What users see."""
    return [source.name for source in found.sources]


def test_directories_are_walked_sorted_without_hidden_and_built_things(tmp_path: Path) -> None:
    """Names are relative to the directory given; nothing above it shows."""
    make(tmp_path, "docs/b.md", "docs/a/z.txt", "docs/a/é.bin", "docs/.git/config", "docs/.hidden", "docs/~$b.docx")
    make(
        tmp_path,
        "docs/node_modules/x.md",
        "docs/__pycache__/x.md",
        "docs/env/pyvenv.cfg",
        "docs/env/x.md",
        "docs/Thumbs.db",
    )
    found = discover(["docs"], tmp_path)
    assert names(found) == ["a/z.txt", "a/é.bin", "b.md"]
    assert found.sources[0].path == tmp_path / "docs/a/z.txt"
    assert found.problems == ()


def test_snapshots_are_no_documents(tmp_path: Path) -> None:
    """They hold documents of an index, and would be read as archives of them."""
    make(tmp_path, "docs/a.md", "docs/default-1.snapshot.zip")
    found = discover(["docs"], tmp_path)
    assert names(found) == ["a.md"]
    ((source, error),) = found.problems
    assert (source.name, error.reason) == ("default-1.snapshot.zip", "unsupported")
    assert "winnow snapshot restore" in error.detail


def test_a_file_given_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    """Hidden ones too; its name is the file's name."""
    make(tmp_path, "deep/.notes")
    assert names(discover(["deep/.notes"], tmp_path)) == [".notes"]


def test_overlapping_inputs_give_each_file_once(tmp_path: Path) -> None:
    """The first input that finds it names it."""
    make(tmp_path, "docs/a.md", "docs/b.md")
    found = discover(["docs/b.md", "docs", "docs/../docs/*.md"], tmp_path)
    assert [str(source.path) for source in found.sources] == [str(tmp_path / "docs/b.md"), str(tmp_path / "docs/a.md")]
    assert len(found.scopes) == 3


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("docs/*.md", ["a.md", "b.md"]),
        ("docs/**/*.md", ["a.md", "b.md", "sub/c.md", "sub/deep/d.md"]),
        ("docs/**", ["a.md", "b.md", "sub/c.md", "sub/deep/d.md", "sub/e.txt"]),
        ("docs/s*/*.md", ["sub/c.md"]),
        ("docs/sub*", ["sub/c.md", "sub/deep/d.md", "sub/e.txt"]),
        ("docs/[!b].md", ["a.md"]),
        ("docs/?.md", ["a.md", "b.md"]),
        ("docs/.h*", [".hidden.md"]),
    ],
)
def test_globs(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    """Patterns mean what they mean to a shell, with ** for any depth; names start where the pattern does."""
    make(tmp_path, "docs/a.md", "docs/b.md", "docs/sub/c.md", "docs/sub/deep/d.md", "docs/sub/e.txt", "docs/.hidden.md")
    found = discover([pattern], tmp_path)
    assert names(found) == expected
    assert all(found.covers(str(source.path)) for source in found.sources)


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    """What exists is meant as it is written."""
    make(tmp_path, "a[1].md", "a1.md")
    assert names(discover(["a[1].md"], tmp_path)) == ["a[1].md"]


def test_links(tmp_path: Path) -> None:
    """Linked files and folders are read under the link's name; a loop ends; a broken link is left to the reader."""
    make(tmp_path, "docs/a.md", "other/b.md")
    (tmp_path / "docs/loop").symlink_to(tmp_path / "docs")
    (tmp_path / "docs/linked").symlink_to(tmp_path / "other")
    (tmp_path / "docs/gone.md").symlink_to(tmp_path / "nowhere")
    assert names(discover(["docs"], tmp_path)) == ["a.md", "gone.md", "linked/b.md"]


@pytest.mark.parametrize("given", ["missing.md", "missing", "docs/*.pdf", "nowhere/*.md"])
def test_missing_inputs_are_reported(tmp_path: Path, given: str) -> None:
    """With the words that were given."""
    make(tmp_path, "docs/a.md")
    ((source, error),) = discover([given], tmp_path).problems
    assert (source.name, error.reason) == (given, "not_found")


def test_scopes_tell_what_is_gone(tmp_path: Path) -> None:
    """A path that was indexed and lies in the scope of an input is gone when the input no longer finds it."""
    make(tmp_path, "docs/a.md", "docs2/b.md", "one.md")
    found = discover(["docs", "one.md", "was.md", "*.txt"], tmp_path)
    covered = ["docs/old.md", "docs/sub/old.md", "one.md", "was.md", "was.md/inside.md", "old.txt", "dir.txt/in.md"]
    assert [name for name in covered if not found.covers(tmp_path / name)] == []
    assert [name for name in ["docs2/b.md", "two.md", "one.md/x", "a/old.txt"] if found.covers(tmp_path / name)] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_may_not_be_listed_is_not_gone(tmp_path: Path) -> None:
    """It is reported, and what was indexed from it stays."""
    make(tmp_path, "docs/a.md", "docs/locked/b.md")
    (tmp_path / "docs/locked").chmod(0)
    try:
        found = discover(["docs"], tmp_path)
    finally:
        (tmp_path / "docs/locked").chmod(0o755)
    assert [(source.name, error.reason) for source, error in found.problems] == [("locked", "permission")]
    assert not found.covers(tmp_path / "docs/locked/b.md")
    assert found.covers(tmp_path / "docs/c.md")


def test_a_scope_is_not_fooled_by_a_common_beginning() -> None:
    """docs does not cover docs2."""
    scope = Scope("directory", "/data/docs")
    assert scope.covers("/data/docs/a")
    assert not scope.covers("/data/docs2/a")


def test_a_name_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    """Such a file cannot be named to anybody: it is a problem with the fix, and the others are found."""
    (tmp_path / "good.txt").write_text("text")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.txt")).write_text("text")
    found = discover([str(tmp_path)], tmp_path)
    assert [source.name for source in found.sources] == ["good.txt"]
    assert [(source.name, error.reason) for source, error in found.problems] == [("b?.txt", "unsupported")]
