"""A folder of documents of several formats that can be changed at random."""

import html
import json
import random
from pathlib import Path

import docx

WORDS = ("garden", "river", "winter", "copper", "engine", "letter", "harbour", "silver", "market", "window", "doctor")


class Shelf:
    """`files` below `folder`, one of them with `records`. The same seed makes the same files."""

    def __init__(self, folder: Path, seed: int, files: int = 60, records: int = 300) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self._made = 0
        folder.mkdir(parents=True)
        self._records = {f"r{number}": self._text(2) for number in range(records)}
        self._write_records()
        for _ in range(files - 1):
            self._add()

    def shuffle(self) -> None:
        """Change, remove and add a few files; change, remove and add a few records."""
        for path in self._random.sample(self._files(), 6):
            self._write(path)
        for path in self._random.sample(self._files(), 3):
            path.unlink()
        for _ in range(3):
            self._add()
        for key in self._random.sample(sorted(self._records), 20):
            self._records[key] = self._text(2)
        for key in self._random.sample(sorted(self._records), 5):
            del self._records[key]
        self._records |= {f"n{self._random.random()}": self._text(3) for _ in range(5)}
        self._write_records()

    def _files(self) -> list[Path]:
        return sorted(path for path in self._folder.iterdir() if path.suffix != ".jsonl")

    def _add(self) -> None:
        self._made += 1
        suffix = ("txt", "md", "html", "csv", "docx")[self._made % 5]
        self._write(self._folder / f"{self._made:03}.{suffix}")

    def _write(self, path: Path) -> None:
        paragraphs = [self._text(12) for _ in range(self._random.randrange(1, 30))]
        match path.suffix:
            case ".md":
                path.write_text("".join(f"## {text[:20]}\n\n{text}\n\n" for text in paragraphs))
            case ".html":
                path.write_text("<title>T</title>" + "".join(f"<p>{html.escape(text)}</p>" for text in paragraphs))
            case ".csv":
                path.write_text("number,text\n" + "".join(f"{n},{text}\n" for n, text in enumerate(paragraphs)))
            case ".docx":
                document = docx.Document()
                for text in paragraphs:
                    document.add_paragraph(text)
                document.save(str(path))
            case _:
                path.write_text("\n\n".join(paragraphs))

    def _write_records(self) -> None:
        lines = [json.dumps({"id": key, "text": text, "length": len(text)}) for key, text in self._records.items()]
        self._random.shuffle(lines)
        (self._folder / "records.jsonl").write_text("\n".join(lines))

    def _text(self, sentences: int) -> str:
        return " ".join(" ".join(self._random.choices(WORDS, k=9)).capitalize() + "." for _ in range(sentences))
