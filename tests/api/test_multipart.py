"""POST /documents with files."""

from email.message import EmailMessage
from typing import Any

import httpx
import pytest

from app.api.multipart import MAX_UPLOAD_BYTES
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
    ],
)
async def test_a_broken_form_is_refused(client: httpx.AsyncClient, body: bytes, headers: dict[str, str]) -> None:
    """Whatever is wrong with the form is 400."""
    response = await client.post("/documents", content=body, headers=headers)
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/problem+json"


async def test_too_many_bytes_are_refused(client: httpx.AsyncClient) -> None:
    """Files beyond 100 MB together are 413, found while they come in."""

    async def pieces() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
        for _ in range(MAX_UPLOAD_BYTES // 10_000_000 + 1):
            yield b"a" * 10_000_000
        yield b"\r\n--b--\r\n"

    response = await client.post("/documents", content=pieces(), headers=FORM)
    assert response.status_code == 413
    assert "several requests" in response.json()["detail"]
