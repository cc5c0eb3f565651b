"""POST /documents with files."""

import asyncio
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar

from app.services.documents import MAX_BODY_BYTES
from app.services.jobs import Jobs
from app.wiring import Services
from indexing.disk import DiskGuard
from tests.api.test_documents import POST_DOCUMENTS
from tests.api.test_jobs import finished
from tests.unit.indexing.readers.making import zipped

pytestmark = pytest.mark.anyio

FORM = {"Content-Type": "multipart/form-data; boundary=b"}

File = tuple[str, bytes, str]


async def send(client: httpx.AsyncClient, collection: str, *files: File) -> dict[str, Any]:
    parts = [("files", file) for file in files]
    response = await client.post("/documents", files=parts, data={"collection": collection})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_files_are_read_and_found(client: httpx.AsyncClient) -> None:
    """Each file is a document under its name, read by its format; a file of records is several."""
    answer = await send(
        client,
        "mixed",
        ("guide.md", b"# Dental\n\nCover starts at once.", "text/markdown"),
        ("rows.jsonl", b'{"id": "r1", "text": "parking row"}\n{"id": "r2", "text": "office row"}\n', ""),
        ("page.html", b"<html><body><h1>Holiday</h1><p>Thirty days.</p></body></html>", "text/html"),
    )
    assert (answer["created"], answer["failed"]) == (4, 0)
    assert [result["source"] for result in answer["results"]] == ["guide.md", "rows.jsonl", "rows.jsonl", "page.html"]
    assert [result["id"] for result in answer["results"]][1:3] == ["r1", "r2"]
    body = {"query": "dental cover", "collection": "mixed"}
    best = (await client.post("/search", json=body)).json()["results"][0]
    assert (best["source"], best["heading"]) == ("guide.md", ["Dental"])


async def test_one_bad_file_fails_alone(client: httpx.AsyncClient) -> None:
    """Each unreadable file has the reader's reason; the good one is indexed."""
    answer = await send(
        client,
        "badfiles",
        ("broken.pdf", b"%PDF-1.7 and no more", "application/pdf"),
        ("good.txt", b"dental cover", "text/plain"),
        ("empty.txt", b"", "text/plain"),
        ("old.doc", b"x", "application/msword"),
    )
    reasons = {result["source"]: result["reason"] for result in answer["results"]}
    assert reasons == {"broken.pdf": "corrupt", "good.txt": None, "empty.txt": "empty", "old.doc": "corrupt"}
    assert (answer["created"], answer["failed"]) == (1, 3)


def mail_with(*attached: str) -> File:
    """A mail to which these notes are attached."""
    message = EmailMessage()
    message["Subject"] = "Plans"
    message.set_content("All plans are attached.")
    for name in attached:
        message.add_attachment(f"What {name} says.", filename=name)
    return "plans.eml", message.as_bytes(), "message/rfc822"


async def test_a_mail_and_what_is_attached_come_and_go_together(client: httpx.AsyncClient) -> None:
    """An upload with fewer attachments removes the others, and deleting the mail deletes all of them."""

    async def ids() -> set[str]:
        listed = (await client.get("/documents", params={"collection": "mails"})).json()
        return {document["id"] for document in listed["documents"]}

    first = await send(client, "mails", mail_with("a.txt", "b.txt"))
    mail, a, b = (result["id"] for result in first["results"])
    assert {one.rpartition(".")[0] for one in (a, b)} == {mail}
    second = await send(client, "mails", mail_with("b.txt"))
    assert [(one["id"], one["status"]) for one in second["results"]] == [(mail, "updated"), (b, "unchanged")]
    assert await ids() == {mail, b}
    assert (await client.delete(f"/documents/{mail}", params={"collection": "mails"})).status_code == 204
    assert await ids() == set()
    broken = ("plans.zip", zipped({"a.txt": "Alpha.", "b.docx": b"PK"}), "")
    await send(client, "mails", ("plans.zip", zipped({"a.txt": "Alpha.", "b.docx": "text", "c.txt": "Gamma."}), ""))
    assert [one["reason"] for one in (await send(client, "mails", broken))["results"]] == [None, "corrupt"]
    assert len(await ids()) == 2  # what the archive has lost, nobody knows while a part of it is broken


async def test_the_same_file_again_is_unchanged(client: httpx.AsyncClient) -> None:
    """Its name is its identity: new content under it is an update, and twice in one request a duplicate."""
    file = ("a/b.txt", b"dental", "text/plain")
    assert (await send(client, "again", file))["created"] == 1
    assert (await send(client, "again", file))["unchanged"] == 1
    answer = await send(client, "again", ("a/b.txt", b"office", "text/plain"), file)
    assert [result["status"] for result in answer["results"]] == ["updated", "failed"]
    assert answer["results"][1]["reason"] == "duplicate_id"


async def test_a_records_id_is_checked_like_any_other(client: httpx.AsyncClient) -> None:
    """An id that could not be asked for fails that record alone."""
    lines = b'{"id": "%s", "text": "long"}\n{"id": "ok", "text": "short"}\n' % (b"i" * 600)
    answer = await send(client, "recordids", ("rows.jsonl", lines, ""))
    assert [result["reason"] for result in answer["results"]] == ["invalid_id", None]


def part(name: str, value: bytes, more: bytes = b"") -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (name.encode(), more, value)


FILE = part("files", b"text", b'; filename="a.txt"')
BAD_FORMS = [
    (part("collection", b"c"), "/files"),
    (FILE + part("other", b"1"), "/other"),
    (part("files", b"text"), "/files"),
    (FILE * 1001, "/files"),
    (FILE + part("collection", b""), "/collection"),
    (FILE + part("collection", b"a") + part("collection", b"b"), "/collection"),
    (FILE + part("collection", b"a", b'; filename="c"'), "/collection"),
]


@pytest.mark.parametrize(("body", "pointer"), BAD_FORMS)
async def test_the_form_is_strict(client: httpx.AsyncClient, body: bytes, pointer: str) -> None:
    """Unknown, missing and misshapen fields are 400 with a pointer."""
    response = await client.post("/documents", content=body + b"--b--\r\n", headers=FORM)
    assert response.status_code == 400
    assert response.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", FORM),
        (b"no form", FORM),
        (FILE, FORM),
        (FILE + b"--b--\r\n", {"Content-Type": "multipart/form-data"}),
        (FILE + part("collection", b"\xff") + b"--b--\r\n", FORM),
        (FILE + part("collection", b"a", b"\r\nContent-Type: text/plain; charset=klingon") + b"--b--\r\n", FORM),
        (FILE * 1002 + b"--b--\r\n", FORM),
        (FILE.replace(b"a.txt", b"\xff.txt") + b"--b--\r\n", FORM),
    ],
)
async def test_a_broken_form_is_refused(client: httpx.AsyncClient, body: bytes, headers: dict[str, str]) -> None:
    """Whatever is wrong with the form is 400, in our words and not in Python's."""
    response = await client.post("/documents", content=body, headers=headers)
    assert response.status_code == 400, response.text
    assert "Error(" not in response.text
    assert response.headers["content-type"] == "application/problem+json"


def file_head(name: str) -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n' % name.encode()


END = b"\r\n--b--\r\n"
LINE = b'{"id": "%d", "text": "dental row"}' + b" " * 1_000_000 + b"\n"


@pytest.fixture
def small_uploads(services: Services) -> Services:
    """Uploads may have 3 MB."""
    service = msgspec.structs.replace(services.settings.service, max_upload_bytes=3_000_000)
    services.settings = msgspec.structs.replace(services.settings, service=service)
    return services


def left_on_disk(services: Services) -> list[Path]:
    directory = services.settings.index.home / "jobs"
    return list(directory.rglob("*")) if directory.exists() else []


async def test_too_many_bytes_are_refused(small_uploads: Services, client: httpx.AsyncClient) -> None:
    """413 that names the setting, found while they come in; nothing of them is left."""

    async def pieces() -> Any:
        yield file_head("a.txt")
        for _ in range(4):
            yield b"a" * 1_000_000
        yield END

    response = await client.post("/documents", content=pieces(), headers=FORM)
    assert response.status_code == 413
    assert "3000000 bytes (max_upload_bytes of [service])" in response.json()["detail"]
    assert left_on_disk(small_uploads) == []


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=b", "application/json"])
async def test_a_body_whose_length_is_too_large_is_not_read(
    small_uploads: Services, client: httpx.AsyncClient, kind: str
) -> None:
    """413 at once, naming the setting."""

    async def pieces() -> Any:
        raise AssertionError("it is read")
        yield b""

    headers = {"Content-Type": kind, "Content-Length": "20000000"}
    response = await client.post("/documents", content=pieces(), headers=headers)
    assert response.status_code == 413
    setting = "max_upload_bytes" if "form" in kind else "max_body_bytes"
    assert f"({setting} of [service])" in response.json()["detail"]


@pytest.mark.parametrize("wait", ["true", "false"])
async def test_large_files_pass_over_the_disk(client: httpx.AsyncClient, services: Services, wait: str) -> None:
    """All are indexed, whether the caller waits or not, two uploads at once do not meet, and nothing is left."""

    async def upload(collection: str) -> int:
        large = b"".join(LINE % number for number in range(5))
        files = [("large.jsonl", large, ""), ("half.txt", b"dental " + b" " * 600_000, ""), ("small.txt", b"cover", "")]
        parts = [("files", file) for file in files]
        response = await client.post(f"/documents?wait={wait}", files=parts, data={"collection": collection})
        answer: dict[str, Any] = response.json()
        if wait == "false":
            answer = await finished(client, response.headers["location"])
        return int(answer["created"])

    names = [f"large-{wait}-{number}" for number in range(2)]
    assert await asyncio.gather(*map(upload, names)) == [7, 7]
    for name in names:
        listed = (await client.get("/documents", params={"collection": name})).json()["documents"]
        assert {one["source"] for one in listed} == {"large.jsonl", "half.txt", "small.txt"}
    async with asyncio.timeout(30):
        while left_on_disk(services):  # noqa: ASYNC110 - of a job, after it is said to be done
            await asyncio.sleep(0.01)


async def test_large_files_take_no_memory(client: httpx.AsyncClient, services: Services) -> None:
    """What has gone to the disk leaves room for the bodies of others."""
    with services.documents.receiving() as count:
        count(MAX_BODY_BYTES - 3_000_000)

        async def pieces() -> Any:
            yield b'--b\r\nContent-Disposition: form-data; name="collection"\r\n\r\nlarge-in-pieces\r\n'
            yield file_head("large.jsonl")
            for number in range(5):
                yield LINE % number
            yield END

        response = await client.post("/documents?wait=false", content=pieces(), headers=FORM)
    assert response.status_code == 202, response.text
    assert (await finished(client, response.headers["location"]))["created"] == 5


async def test_a_client_that_goes_away_amid_a_large_file_leaves_nothing(app: Litestar, services: Services) -> None:
    """What had come of it is deleted."""
    seen: list[Path] = []
    events = iter([file_head("a.txt"), *[b"a" * 2_000_000] * 2])

    async def receive() -> Any:
        if piece := next(events, None):
            return {"type": "http.request", "body": piece, "more_body": True}
        seen.extend(path for path in left_on_disk(services) if path.name == "1")
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        """Nobody is there."""

    scope = {**POST_DOCUMENTS, "headers": [(b"content-type", FORM["Content-Type"].encode()), (b"host", b"localhost")]}
    async with app.lifespan():
        await app({**scope, "state": {}}, receive, send)  # type: ignore[arg-type]
    assert len(seen) == 1
    assert left_on_disk(services) == []


@pytest.mark.parametrize("told", [True, False])
async def test_a_full_disk_takes_no_large_file(client: httpx.AsyncClient, services: Services, *, told: bool) -> None:
    """507, whether the length is told before or not; small ones need no room here."""
    services.jobs = Jobs(services.settings.index.home, services.documents, DiskGuard(Path(), 10**18))
    body = file_head("a.txt") + b"a" * 6_000_000 + END

    async def pieces() -> Any:
        yield body

    response = await client.post("/documents", content=body if told else pieces(), headers=FORM)
    assert (response.status_code, response.json()["type"]) == (507, "urn:winnow:problem:disk-full")
    assert left_on_disk(services) == []
    assert (await send(client, f"small-{told}", ("a.txt", b"dental cover", "")))["created"] == 1
