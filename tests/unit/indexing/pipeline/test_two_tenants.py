"""Two tenants with the same files and the same ids: whatever befalls one of them, the other's documents stay."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from indexing.disk import DiskGuard
from indexing.documents import Audience, Document, document_key
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.ingest import SubmittedDocument, finish_deletions, finish_submitted, put_documents
from indexing.pipeline.manifest import DocumentRecord
from indexing.pipeline.progress import say_nothing
from indexing.pipeline.recovery import recover_lost, repair
from indexing.pipeline.snapshot import SnapshotFile, create_snapshot, restore_snapshot
from indexing.store.embedded import EmbeddedStore
from tests.fakes.library import index, passages, records, workbench

pytestmark = pytest.mark.anyio

TENANTS = ("", "a", "b")
GROUPS = {"": (), "a": ("hr",), "b": ()}

Held = list[tuple[str, str, str, tuple[str, ...]]]


def note(tenant: str, text: str) -> SubmittedDocument:
    writer = Audience(tenant=tenant, groups=GROUPS[tenant])
    document = Document(text=text, allowed=GROUPS[tenant])
    return SubmittedDocument(writer=writer, tenant=tenant, id="same", document=document)


@pytest.fixture
async def folder(bench: PipelineContext, tmp_path: Path) -> Path:
    """Of files that are indexed for each tenant, for a group of one of them, beside a document of one id."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "fern.txt").write_text("Ferns grow in the shade.")
    (folder / "r.jsonl").write_text('{"id": "r1", "text": "One."}\n')
    for tenant in TENANTS:
        await index(bench, folder, tenant=tenant, allowed=GROUPS[tenant])
    await put_documents(bench, "default", [note(tenant, f"A note of {tenant or 'nobody'}.") for tenant in TENANTS])
    return folder


@pytest.fixture
async def elsewhere(tmp_path: Path) -> AsyncIterator[PipelineContext]:
    (home := tmp_path / "elsewhere").mkdir()
    bench = workbench(EmbeddedStore(home / "index"), home)
    yield bench
    await bench.manifest.close()
    await bench.store.close()


async def held(bench: PipelineContext) -> Held:
    """Of every passage whose it is, its document, its text, and the groups that see it."""
    return sorted((one.tenant, one.document_id, one.text, one.allowed) for one in await passages(bench))


async def lineage(bench: PipelineContext) -> str:
    return (await bench.store.info("default")).spec.lineage


async def record(bench: PipelineContext, tenant: str) -> DocumentRecord:
    found = await bench.manifest.document_with_body(await lineage(bench), document_key(tenant, "same"))
    assert found is not None
    return found


async def shown(bench: PipelineContext, tenant: str, *groups: str) -> int:
    """How many documents a key of this tenant with these groups sees."""
    return (await bench.manifest.seen(await lineage(bench), Audience(tenant=tenant, groups=groups)))[0]


async def test_a_lost_manifest_comes_back_with_tenants_and_groups(bench: PipelineContext, folder: Path) -> None:
    """Each sees its own again, and the next runs take their files over."""
    before = await held(bench)
    await bench.manifest.forget_lineage(await lineage(bench))
    assert [one.recovered for one in await recover_lost(bench)] == [9]
    assert [await shown(bench, "a"), await shown(bench, "a", "hr"), await shown(bench, "b")] == [0, 3, 3]
    (folder / "fern.txt").unlink()
    for tenant in TENANTS:
        summary = await index(bench, folder, tenant=tenant, allowed=GROUPS[tenant])
        assert (summary.created, summary.updated, summary.refused) == (0, 0, ())
    assert await held(bench) == before  # a file that was gone before it was taken over is nobody's to delete


async def test_repairing_a_document_leaves_that_of_another_tenant(bench: PipelineContext, folder: Path) -> None:
    """It is written again for its own tenant and group."""
    before = await held(bench)
    await bench.store.delete_documents("default", [document_key("a", "same")])
    assert (await repair(bench, "default")).written == 1
    await finish_submitted(bench, "default", await lineage(bench))
    assert await held(bench) == before


async def test_a_snapshot_restores_tenants_and_groups(
    bench: PipelineContext, elsewhere: PipelineContext, folder: Path, tmp_path: Path
) -> None:
    """In another home the runs of a tenant go on, over its own files."""
    disk = DiskGuard(tmp_path, 0)
    await create_snapshot(bench, "default", tmp_path / "x.zip", disk, "9.9", say_nothing)
    snapshot = SnapshotFile(tmp_path / "x.zip")
    await snapshot.check(say_nothing)
    await restore_snapshot(elsewhere, snapshot, "default", say_nothing)
    assert (await held(elsewhere), await records(elsewhere)) == (await held(bench), await records(bench))
    (folder / "fern.txt").unlink()
    summary = await index(elsewhere, folder, tenant="b")
    assert (summary.deleted, summary.created, summary.updated) == (1, 0, 0)
    assert [one for one in await held(elsewhere) if one[0] != "b"] == [
        one for one in await held(bench) if one[0] != "b"
    ]


async def test_a_kill_in_the_middle_of_a_put_is_finished_for_its_tenant(bench: PipelineContext, folder: Path) -> None:
    """Meanwhile each tenant has what counted before."""
    before = await held(bench)
    body = note("a", "Another note of a.").document
    changed = msgspec.structs.replace(await record(bench, "a"), body=body, version=body.content_hash())
    await bench.manifest.announce(await lineage(bench), [changed])
    assert await held(bench) == before
    await finish_submitted(bench, "default", await lineage(bench))
    theirs = [one for one in before if one[:2] != ("a", "same")]
    assert await held(bench) == sorted([*theirs, ("a", "same", "Another note of a.", ("hr",))])


async def test_a_kill_in_the_middle_of_a_deletion_is_finished_for_its_tenant(
    bench: PipelineContext, folder: Path
) -> None:
    """The document of the same id of another one is not touched."""
    before = await held(bench)
    await bench.manifest.announce_deletion(await lineage(bench), [document_key("b", "same")])
    await finish_deletions(bench, "default", await lineage(bench))
    assert await held(bench) == [one for one in before if one[:2] != ("b", "same")]


async def test_a_rebuild_carries_every_tenants_documents_over(bench: PipelineContext, folder: Path) -> None:
    """Whoever's run it is."""
    before = await held(bench)
    await index(bench, folder, tenant="b", rebuild=True)
    assert await held(bench) == before
    assert [await shown(bench, "a"), await shown(bench, "a", "hr"), await shown(bench, "b")] == [0, 3, 3]
