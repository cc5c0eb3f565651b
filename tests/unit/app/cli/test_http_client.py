"""The command line's way to the service: what it makes of replies."""

import pytest

from app.cli.http_client import RemoteService, ServiceRefused
from app.errors import InvalidRequest
from app.instance import Presence
from indexing.errors import CollectionNotFound
from indexing.pipeline.progress import Planned, Summary, SyncRequest
from tests.fakes.http_server import answering

SYNC = SyncRequest(inputs=("docs",), cwd="/")


def remote(url: str) -> RemoteService:
    return RemoteService(url, Presence(url=url, token="t", pid=1).headers)


@pytest.mark.parametrize(("status", "error"), [(422, InvalidRequest), (404, ServiceRefused), (503, ServiceRefused)])
def test_a_problem_keeps_its_words(status: int, error: type[Exception]) -> None:
    """The detail is the message; the caller's mistakes stay the caller's."""
    with answering(status, b'{"detail": "no such thing"}') as url, pytest.raises(error, match=r"^no such thing$"):
        remote(url).post("/search", {})


def test_a_reply_that_is_no_problem_has_its_status() -> None:
    """A proxy's page, for instance."""
    with answering(502, b"<html>") as url, pytest.raises(ServiceRefused, match="HTTP status 502"):
        remote(url).post("/search", {})


def test_a_collection_that_does_not_exist_is_an_error_of_its_own() -> None:
    """The command line can then say how to create it, as it does without a service."""
    body = b'{"type": "urn:winnow:problem:collection-not-found", "detail": "no"}'
    for ask in (
        lambda service: service.post("/search", {"collection": "notes"}),
        lambda service: list(service.stream("/answer", {"collection": "notes"})),
    ):
        with answering(404, body) as url, pytest.raises(CollectionNotFound) as raised:
            ask(remote(url))
        assert raised.value.name == "notes"


@pytest.mark.parametrize("call", ["post", "sync", "put", "stream"])
def test_a_service_that_is_gone_is_one_clear_error(call: str) -> None:
    """Whatever is asked of it."""
    with answering(200) as url:
        pass
    service = remote(url)
    calls = {
        "post": lambda: service.post("/search", {}),
        "sync": lambda: list(service.run("/internal/sync", SYNC)),
        "put": lambda: service.put(b"", "a.txt", "default", "", ()),
        "stream": lambda: list(service.stream("/answer", {})),
    }
    with pytest.raises(ServiceRefused, match="running the command again continues from there"):
        calls[call]()


def test_a_run_ends_with_its_summary() -> None:
    """The events come in order."""
    planned_line = b'{"type":"planned","new":1,"changed":0,"unchanged":0,"gone":0,"bytes":1}\n'
    lines = planned_line + b'{"type":"summary","collection":"c"}\n'
    with answering(200, lines) as url:
        planned, summary = remote(url).run("/internal/sync", SYNC)
    assert isinstance(planned, Planned)
    assert summary == Summary(collection="c")


@pytest.mark.parametrize("body", [b"", b'{"type":"planned"', b'{"type":"failed","detail":"disk is full"}\n'])
def test_a_run_without_a_summary_is_an_error(body: bytes) -> None:
    """Never a silent half."""
    with (
        answering(200, body) as url,
        pytest.raises(ServiceRefused, match=r"before indexing was finished|disk is full|connection"),
    ):
        list(remote(url).run("/internal/sync", SYNC))


def test_a_streamed_answer_must_come_to_its_end() -> None:
    """An `error` event, or a stream without `done`, is raised."""
    with answering(200, b'event: delta\ndata: {"text":"a"}\n\nevent: error\ndata: {"detail":"sorry"}\n\n') as url:
        events = remote(url).stream("/answer", {})
        assert next(events) == ("delta", {"text": "a"})
        with pytest.raises(ServiceRefused, match="sorry"):
            next(events)
    with answering(200, b": ping\n\n") as url, pytest.raises(ServiceRefused, match="closed the connection"):
        list(remote(url).stream("/answer", {}))


def test_a_path_that_is_no_text_is_told() -> None:
    """JSON cannot carry it."""
    with pytest.raises(InvalidRequest, match="not valid UTF-8"):
        list(remote("http://127.0.0.1:1").run("/internal/sync", SyncRequest(inputs=("\udcff",), cwd="/")))
