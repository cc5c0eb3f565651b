"""Files in a bucket, through fsspec, as if they lay in a folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexing.pipeline.context import PipelineContext
from indexing.pipeline.progress import Summary, SyncRequest
from indexing.pipeline.sync import sync
from tests.fakes.bucket import BOTO_ERROR, Bucket, buckets
from tests.fakes.library import passages, texts

pytestmark = pytest.mark.anyio


@pytest.fixture
def bucket() -> Iterator[type[Bucket]]:
    """One with three files."""
    with buckets() as bucket:
        for name in ("apple.txt", "more/birch.md", "more/cedar.txt"):
            bucket.contents[f"acme/docs/{name}"] = f"The {Path(name).stem} stands in the garden.".encode()
        yield bucket


async def run(bench: PipelineContext, *inputs: str, rebuild: bool = False) -> Summary:
    return await sync(bench, SyncRequest(inputs=inputs, cwd="/", rebuild=rebuild))


def refused(summary: Summary) -> list[tuple[str, str]]:
    return [(one.source, one.reason) for one in summary.refused]


async def test_a_bucket_is_indexed_as_a_folder_is(bench: PipelineContext, bucket: type[Bucket]) -> None:
    """Files are named from the folder on; what a folder would skip is skipped."""
    bucket.contents |= {"acme/docs/.git/config": b"x", "acme/docs/~$a.docx": b"x", "acme/docs/node_modules/a.md": b"x"}
    summary = await run(bench, "s3://acme/docs/")
    assert (summary.created, summary.refused) == (3, ())
    assert {passage.source for passage in await passages(bench)} == {"apple.txt", "more/birch.md", "more/cedar.txt"}


async def test_what_has_not_changed_is_not_even_fetched(bench: PipelineContext, bucket: type[Bucket]) -> None:
    """The listing tells by the tag of each content; a changed file is fetched, and one that is gone is deleted."""
    await run(bench, "s3://acme/docs")
    bucket.fetched.clear()
    assert (await run(bench, "s3://acme/docs")).unchanged == 3
    assert bucket.fetched == []
    bucket.contents["acme/docs/apple.txt"] = b"The apple fell."
    del bucket.contents["acme/docs/more/cedar.txt"]
    summary = await run(bench, "s3://acme/docs")
    assert (summary.updated, summary.deleted, summary.unchanged) == (1, 1, 1)
    assert bucket.fetched == ["acme/docs/apple.txt"]
    assert await texts(bench) == ["The apple fell.", "The birch stands in the garden."]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("s3://acme/docs/**/*.txt", ["apple.txt", "more/cedar.txt"]),
        ("s3://acme/docs/more", ["birch.md", "cedar.txt"]),
        ("s3://acme/docs/apple.txt", ["apple.txt"]),
        ("s3://acme", ["docs/apple.txt", "docs/more/birch.md", "docs/more/cedar.txt"]),
    ],
)
async def test_files_folders_buckets_and_globs(
    bench: PipelineContext, bucket: type[Bucket], given: str, expected: list[str]
) -> None:
    """As in the file system."""
    await run(bench, given)
    assert sorted({passage.source for passage in await passages(bench)}) == expected


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(BOTO_ERROR("no route"), "unreachable"), (PermissionError("denied"), "permission"), (OSError(5), "unreachable")],
)
async def test_nothing_is_deleted_while_the_bucket_cannot_be_listed(
    bench: PipelineContext, bucket: type[Bucket], fault: Exception, reason: str
) -> None:
    """Nobody knows what is gone; the run fails for this input, by its name, without the words of a library."""
    await run(bench, "s3://acme/docs")
    bucket.fault = fault
    summary = await run(bench, "s3://acme/docs")
    assert refused(summary) == [("s3://acme/docs", reason)]
    assert summary.refused[0].kept
    assert "s3://acme" in summary.refused[0].detail
    assert str(fault) not in summary.refused[0].detail
    assert len(await texts(bench)) == 3
    await run(bench, "s3://acme/docs", rebuild=True)
    assert len(await texts(bench)) == 3


async def test_a_prefix_that_became_empty_is_gone(bench: PipelineContext, bucket: type[Bucket]) -> None:
    """As a folder that was deleted; one that never was is not found."""
    await run(bench, "s3://acme/docs")
    bucket.contents.clear()
    summary = await run(bench, "s3://acme/docs")
    assert (summary.deleted, summary.refused) == (3, ())
    assert refused(await run(bench, "s3://acme/other")) == [("s3://acme/other", "not_found")]


async def test_a_rebuild_reads_the_bucket_again(bench: PipelineContext, bucket: type[Bucket]) -> None:
    """Files that are still there are read though the run names no input; one that is gone keeps its passages."""
    await run(bench, "s3://acme/docs")
    del bucket.contents["acme/docs/apple.txt"]
    summary = await run(bench, rebuild=True)
    assert (summary.refused, summary.total_documents) == ((), 3)
    assert sorted(set(bucket.fetched[3:])) == ["acme/docs/more/birch.md", "acme/docs/more/cedar.txt"]


@pytest.mark.parametrize(
    ("given", "reason", "words"),
    [("ftp://host/file", "unsupported", "s3://"), ("gs://bucket/docs", "unreachable", "winnow[gcs]")],
)
async def test_an_address_that_cannot_be_reached_here_says_what_can(
    bench: PipelineContext, given: str, reason: str, words: str
) -> None:
    """A protocol that is unknown, or whose package is missing."""
    summary = await run(bench, given)
    assert refused(summary) == [(given, reason)]
    assert words in summary.refused[0].detail
    assert not summary.refused[0].kept


async def test_a_file_beyond_the_limit_is_not_fetched(bench: PipelineContext, bucket: type[Bucket]) -> None:
    """Its listing tells."""
    bucket.contents["acme/docs/large.txt"] = b"x" * (bench.limits.max_bytes + 1)
    summary = await run(bench, "s3://acme/docs/large.txt")
    assert refused(summary) == [("large.txt", "too_large")]
    assert bucket.fetched == []
