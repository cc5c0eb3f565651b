"""Real files through the whole way: which are indexed or refused and why, and whether questions find the right page.

    python -m benchmarks.pages --data .../docs [--home DIR] [--verbose]

Expects files/, manifest.jsonl and questions.jsonl (each question names a file and the pages that answer it). A question
counts when one of the first five passages lies in its file, on one of its pages or on the page before or after.
Exit status 1 when a file is unaccounted for, or fewer than 42 of 50 questions find their page.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from app.domain import ANONYMOUS, Hit, Query
from benchmarks.indexed import index_folder, services_at

TOP = 5
REQUIRED = 42 / 50


def main() -> int:
    """Index, ask, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--verbose", action="store_true", help="show the questions that miss")
    args = parser.parse_args()
    return asyncio.run(_run(args.data, args.home, args.verbose))


async def _run(data: Path, home: Path | None, verbose: bool) -> int:
    files = {entry["path"].removeprefix("files/") for entry in _lines(data / "manifest.jsonl")}
    async with services_at(home) as services:
        summary = await index_folder(services, data / "files")
        for refused in summary.refused:
            print(f"refused {refused.source} [{refused.reason}] {refused.detail}")
        accounted = summary.created + summary.unchanged + len({r.source for r in summary.refused})
        print(f"{accounted} of {len(files)} files accounted for; {summary.total_passages} passages")
        hits = {q["_id"]: await _search(services, q["text"]) for q in _lines(data / "questions.jsonl")}
    questions = [q for q in _lines(data / "questions.jsonl") if q.get("pages")]
    missed = [q for q in questions if not _right_page(q, hits[q["_id"]])]
    for question in missed if verbose else ():
        print(f"  {question['_id']} {question['text']}\n    wants {question['file']} {question['pages']}")
        print("    " + "; ".join(f"{hit.source} {hit.page}" for hit in hits[question["_id"]]))
    found = len(questions) - len(missed)
    print(f"right page within 1, top {TOP}: {found} of {len(questions)}")
    return int(accounted != len(files) or found < REQUIRED * len(questions))


async def _search(services: Any, text: str) -> tuple[Hit, ...]:
    found: tuple[Hit, ...] = (await services.searcher.search(Query(text=text, limit=TOP), ANONYMOUS)).results
    return found


def _right_page(question: dict[str, Any], hits: tuple[Hit, ...]) -> bool:
    name = question["file"].removeprefix("files/")
    pages = {page + near for page in question["pages"] for near in (-1, 0, 1)}
    return any(hit.source == name and hit.page in pages for hit in hits)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
