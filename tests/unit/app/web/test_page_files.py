"""The files of the page, read as text: what a browser would only show in one of its views or languages."""

import re
from pathlib import Path

import pytest

from app.web.routes import FILES, load_page

SCRIPTS = sorted(FILES.rglob("*.js"))
VIEWS = [path for path in SCRIPTS if path.parent.name != "words"]
LANGUAGES = ("en", "de", "zh")

_ENTRY = re.compile(r'^  "([\w.-]+)": "(.*)",$', re.MULTILINE)
_SAID = re.compile(r'\bt\("([^"]+)"')
_QUOTED = re.compile(r'"([\w.-]+)"')
_PUT_TOGETHER = re.compile(r"\b(?:t|maybe)\([^()]*?`([\w.-]+)\$\{")
_PLACEHOLDER = re.compile(r"\{\w+\}")


def words_of(language: str) -> dict[str, str]:
    """The texts by their keys."""
    return dict(_ENTRY.findall((FILES / "words" / f"{language}.js").read_text("utf-8")))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_everything(language: str) -> None:
    """The same keys with the same placeholders, one a line, none of them empty."""
    english, words = words_of("en"), words_of(language)
    lines = (FILES / "words" / f"{language}.js").read_text("utf-8").splitlines()
    assert sum(line.startswith("  ") for line in lines) == len(words)
    assert list(words) == list(english)
    for key, text in words.items():
        assert text, key
        assert set(_PLACEHOLDER.findall(text)) == set(_PLACEHOLDER.findall(english[key])), key
        assert text.count("|") in (0, 1), key


def test_what_the_views_say_is_there_and_nothing_else() -> None:
    """A key that no text has would be shown as it is; a text that no view shows is dead."""
    scripts = "\n".join(path.read_text("utf-8") for path in VIEWS)
    beginnings = tuple(set(_PUT_TOGETHER.findall(scripts)))
    words = set(words_of("en"))
    assert set(_SAID.findall(scripts)) <= words
    assert {start for start in beginnings if not any(key.startswith(start) for key in words)} == set()
    assert {key for key in words - set(_QUOTED.findall(scripts)) if not key.startswith(beginnings)} == set()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_no_markup_and_run_no_text(path: Path) -> None:
    """Texts are put in as texts: the policy of the page forbids the rest, and no script tries."""
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|DOMParser"
    assert not re.search(forbidden, path.read_text("utf-8"))


def test_the_page_asks_nothing_of_another_host() -> None:
    """No address of another host is in any file, but the name of SVG."""
    for path in FILES.rglob("*.*"):
        found = re.findall(r"https?://[\w.-]+", path.read_text("utf-8"))
        assert set(found) <= {"http://www.w3.org"}, path


def test_the_page_is_small() -> None:
    """All that a browser loads is under 150 kB, in the longest language; and every module can be read at once."""
    page = load_page()
    words = [len(content) for name, content in page.files.items() if name.startswith("words/")]
    assert len(page.html) + sum(map(len, page.files.values())) - sum(words) + max(words) < 150_000
    for path in VIEWS:
        assert len(path.read_text("utf-8").splitlines()) <= 300, path


def test_another_file_is_another_version(tmp_path: Path) -> None:
    """Browsers keep files for good by the version in their address."""
    (tmp_path / "index.html").write_text('<script src="web/{version}/a.js"></script><!-- modules -->')
    (tmp_path / "a.js").write_text("1")
    first = load_page(tmp_path)
    (tmp_path / "a.js").write_text("2")
    load_page.cache_clear()
    second = load_page(tmp_path)
    assert first.version != second.version
    assert f'src="web/{second.version}/a.js"'.encode() in second.html
    assert f'modulepreload" href="web/{second.version}/a.js"'.encode() in second.html
    load_page.cache_clear()
