"""Reads BEIR-style sets: corpus.jsonl and queries.jsonl (or .jsonl.gz), qrels.tsv."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path


def read_qrels(folder: Path) -> dict[str, dict[str, int]]:
    """Grades above 0, by query and document."""
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines():
        query, document, grade = line.split("\t")[:3]
        if grade.isdecimal() and int(grade) > 0:
            qrels.setdefault(query, {})[document] = int(grade)
    return qrels


def read_lines(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a .jsonl, packed or not."""
    return map(json.loads, read_bytes(path).decode("utf-8").splitlines())


def read_bytes(path: Path) -> bytes:
    """The file, or what is in the .gz beside it."""
    return path.read_bytes() if path.exists() else gzip.decompress(path.with_name(path.name + ".gz").read_bytes())
