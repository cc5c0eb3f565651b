"""What a person sees."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from app.cli.render import IndexingView, LoadingView, clean, not_indexed_line, show_answer, show_results, summary_line
from indexing.pipeline.progress import Advanced, Notice, NotIndexed, Planned, Summary, loading_model

NOTES: dict[str, Any] = {
    "warnings": [],
    "degraded": [],
    "timings_ms": {"total": 3.0, "embed": 1.0},
    "usage": {"cost_usd": 0},
}
TEXT = "Cover is for all. Dental cover starts on your first day. Ask Ana."
HIT: dict[str, Any] = {
    "id": "p1",
    "document_id": "d1",
    "source": "handbook.pdf",
    "page": 3,
    "heading": ["Benefits", "Dental"],
    "score": 0.5,
    "text": TEXT,
    "start": 100,
}
CITATION = {
    "marker": 1,
    "result_id": "p1",
    "document_id": "d1",
    "source": "handbook.pdf",
    "page": 3,
    "start": 118,
    "end": 155,
    "quote": TEXT[18:55],
    "verified": True,
}
ANSWER: dict[str, Any] = {
    **NOTES,
    "answer": "Dental cover starts on your first day [1].",
    "answerable": True,
    "abstain_reason": None,
    "citations": [CITATION],
    "unsupported": [],
    "answer_backend": {"requested": "auto", "used": "extractive", "model": None, "fallbacks": []},
    "results": [HIT],
}


def console(*, terminal: bool = False, width: int = 80) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=width, soft_wrap=True, color_system=None)


def shown(on: Console) -> str:
    assert isinstance(on.file, StringIO)
    return on.file.getvalue()


class Clock:
    """Goes on by ten seconds each time it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def test_a_run_is_plain_lines_where_no_terminal_listens() -> None:
    """Each event is a line of its own, with the share done and the time left."""
    on = console()
    with IndexingView(on, Clock()) as view:
        view.show(Planned(new=2, changed=1, unchanged=4, gone=1, bytes=1000))
        view.show(loading_model("m"))
        view.show(Advanced(bytes=500, documents=1, passages=10))
        view.show(Notice(stage="waiting", detail="wait"))
        view.show(Notice(stage="reading", detail="scan.pdf: 3 of 40 pages read by OCR"))
        view.show(Notice(stage="advice", detail="another model"))
        view.show(Notice(stage="finishing", detail="optimising"))
        view.show(Summary(collection="default"))
    assert shown(on).splitlines() == [
        "files: 2 new, 1 changed, 4 unchanged, 1 gone",
        "loading the embedding model m",
        "50%: 10 passages, 1.0/s, about 10 s left",
        "wait",
        "scan.pdf: 3 of 40 pages read by OCR",
        "another model",
        "optimising",
    ]


def test_a_run_leaves_no_bar_on_the_terminal() -> None:
    """Refusals stay readable; the bar is taken away, and the cursor given back."""
    on = console(terminal=True)
    with IndexingView(on) as view:
        view.show(Planned(new=1, changed=0, unchanged=0, gone=0, bytes=10))
        view.show(Advanced(bytes=5, documents=1, passages=1))
        view.show(Notice(stage="reading", detail="[/b].pdf: 1 of 2 pages read by OCR"))
        view.show(NotIndexed(source="a.pdf", reason="corrupt", detail="It is cut short."))
    assert "failed a.pdf [corrupt] It is cut short." in shown(on)
    assert shown(on).rstrip("\x1b[2K\r\n1A").count("\x1b[?25h") == 1


def test_files_that_are_skipped_for_one_reason_are_counted() -> None:
    """The first five are named; every failure is."""
    on = console()
    with IndexingView(on) as view:
        for number in range(9):
            view.show(NotIndexed(source=f"{number}.png", reason="binary", detail="It is binary data.", skipped=True))
            view.show(NotIndexed(source=f"{number}.pdf", reason="corrupt", detail="Cut short."))
        view.show(Summary(collection="default"))
    lines = shown(on).splitlines()
    assert len(lines) == 9 + 5 + 1
    assert lines[-1] == "skipped 4 more [binary] It is binary data."


def test_loading_is_told_to_people_only() -> None:
    """A program that reads the output is not told."""
    for terminal in (False, True):
        on = console(terminal=terminal)
        with LoadingView(on) as view:
            view.show(loading_model("m"))
        assert ("loading the embedding model m" in shown(on)) == terminal


@pytest.mark.parametrize("width", [20, 80])
def test_an_answer_shows_the_quote_amid_its_passage(width: int) -> None:
    """Numbered source, page, span; the quoted sentence in quotation marks, verbatim; the total time comes last."""
    on = console(width=width)
    show_answer(on, ANSWER)
    assert shown(on).splitlines() == [
        "Dental cover starts on your first day [1].",
        "",
        "[1] handbook.pdf, page 3  characters 118-155",
        "    Cover is for all. “Dental cover starts on your first day” . Ask Ana.",
        "",
        "embed 1.0 ms, total 3.0 ms; cost $0.0000",
    ]


def test_an_answer_says_whose_it_is_and_what_nobody_says() -> None:
    """The model that wrote it, who failed before it, each source once, and doubts where there are any."""
    on = console(width=200)
    use = {
        "requested": "auto",
        "used": "gemma",
        "model": "gemma-3",
        "fallbacks": [{"backend": "flash", "reason": "timeout"}],
    }
    doubted = {**CITATION, "marker": 2, "verified": False}
    citations = [CITATION, {**CITATION, "verified": False}, doubted]
    text = "Dental cover starts on your first day [1]. So they say [1][2]. It is grand."
    show_answer(
        on,
        {
            **ANSWER,
            "answer": text,
            "citations": citations,
            "answer_backend": use,
            "unsupported": [{"start": 63, "end": 75}],
        },
    )
    lines = shown(on).splitlines()
    assert lines[0] == text
    assert [line for line in lines if line.startswith("[")] == [
        "[1] handbook.pdf, page 3  characters 118-155",
        "[2] handbook.pdf, page 3  characters 118-155  does not fully support the statement",
    ]
    assert "no source supports this statement: “It is grand.”" in lines
    assert lines[-1].startswith("answered by gemma (gemma-3) after flash (timeout); embed")


def test_an_answer_without_texts_still_quotes() -> None:
    """The quote comes with the citation."""
    on = console()
    show_answer(on, {**ANSWER, "results": [{**HIT, "text": None}]})
    assert "    “Dental cover starts on your first day”" in shown(on).splitlines()


def test_abstaining_is_said() -> None:
    """With its reason in words."""
    on = console()
    show_answer(on, {**ANSWER, "answerable": False, "abstain_reason": "no_results", "citations": []})
    assert "abstained: no results" in shown(on)


def test_results_are_numbered_with_place_and_heading() -> None:
    """One header a hit, then the beginning of its text, on one line for a program."""
    on = console(width=30)
    show_results(on, {**NOTES, "query": "dental", "results": [{**HIT, "text": "x " * 400}]})
    header, snippet, *_ = shown(on).splitlines()
    assert header == "1. 0.500 handbook.pdf, page 3  Benefits > Dental"
    assert snippet.endswith("…")
    assert len(snippet) == 324


def test_a_result_over_several_pages_names_the_first_and_the_last() -> None:
    """A passage may go on over a page's end."""
    on = console(width=60)
    show_results(on, {**NOTES, "query": "dental", "results": [{**HIT, "page_end": 5}]})
    assert "handbook.pdf, pages 3-5" in shown(on)


def test_nothing_found_is_said() -> None:
    """An empty list is no silence."""
    on = console()
    show_results(on, {**NOTES, "query": "q", "results": []})
    assert shown(on).startswith("no results\n")


def test_what_was_searched_with_the_query_is_said() -> None:
    """Phrasings, and what a model wrote, without what a terminal would obey."""
    on = console()
    show_results(on, {**NOTES, "query": "q", "queries": ["q", "in other \x1b[31mwords"], "results": []})
    assert "searched with it: in other  [31mwords" in shown(on)


def test_a_document_cannot_command_the_terminal() -> None:
    """Escape sequences in texts and file names are shown as blanks; markup is no markup."""
    assert clean("a\x1b[31mb\x07\x9bc\nd") == "a [31mb c\nd"
    on = console()
    hit = {**HIT, "text": "\x1b]0;title\x07 [red]hi[/red]", "source": "a\x1b[2Jb"}
    show_results(on, {**NOTES, "query": "q", "results": [hit]})
    assert "\x1b" not in shown(on)
    assert "[red]hi[/red]" in shown(on)
    assert "\x1b" not in not_indexed_line(NotIndexed(source="\x1b[2J", reason="binary", detail="x\x1b")).plain


def test_a_kept_version_is_said() -> None:
    """Who reads that a file failed wants to know what searches find now."""
    kept = not_indexed_line(NotIndexed(source="a", reason="corrupt", detail="Cut short.", kept=True))
    assert kept.plain == "failed a [corrupt] Cut short. The earlier version stays in the index."


def test_the_summary_is_a_line() -> None:
    """What was done, how fast, and what the collection holds."""
    summary = Summary(collection="c", created=1, deleted=2, passages=10, total_documents=3, total_passages=9, seconds=2)
    assert summary_line(summary) == (
        "documents: 1 created, 0 updated, 0 unchanged, 2 deleted in 2.0 s, 5.0 passages/s; "
        "'c' holds 3 documents, 9 passages"
    )


def test_skipped_and_failed_files_are_told_apart() -> None:
    """A file that is never read is no failure, neither in its line nor in the summary."""
    picture = NotIndexed(source="a.png", reason="binary", detail="It is binary data.", skipped=True)
    broken = NotIndexed(source="b.pdf", reason="corrupt", detail="Cut short.")
    assert not_indexed_line(picture).plain == "skipped a.png [binary] It is binary data."
    summary = Summary(collection="c", refused=(picture, broken, picture))
    assert "0 unchanged, 2 skipped, 1 failed in" in summary_line(summary)
    assert "failed" not in summary_line(Summary(collection="c", refused=(picture,)))


def test_how_to_read_a_known_file_again_is_said() -> None:
    """Each line says that the file was not read, the summary how to have it read."""
    known = NotIndexed(source="b.pdf", reason="corrupt", detail="Cut short.", known=True)
    assert (
        not_indexed_line(known).plain == "failed b.pdf [corrupt] Cut short. Known from an earlier run, not read again."
    )
    assert summary_line(Summary(collection="c", refused=(known,))).endswith(
        "--retry-refused reads 1 unchanged file again"
    )
