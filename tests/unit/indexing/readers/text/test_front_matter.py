"""Front matter of Markdown files."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexing.readers.text.markdown import front_matter
from tests.unit.indexing.readers.text.test_text_formats import read_one


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("department: hr", "hr"),
        ("department: 'hr: people'", "hr: people"),
        ('department: "a # b"  ', "a # b"),
        ("department: hr # people", "hr"),
        ("department: 人事部", "人事部"),
        ("department: https://example.com/#a", "https://example.com/#a"),
        ("department: 2024", 2024),
        ("department: -1.5", -1.5),
        ("department: '2024'", "2024"),
        ("department: 007", "007"),
        ("department: 2024-03-01", "2024-03-01"),
        ("department: True", True),
        ("department: [a, 'b, c', 3]", ["a", "b, c", 3]),
        ("department:\n  - a\n  - b # second", ["a", "b"]),
        ("department:\n- a\n- 2", ["a", 2]),
    ],
)
def test_a_field_is_what_a_filter_can_use(line: str, expected: Any) -> None:
    """Texts, numbers, truths, and lists of them in either way to write them."""
    assert front_matter(f"---\nfirst: 1\n{line}\nlast: 2\n---\nText")[1] == {
        "first": 1,
        "department": expected,
        "last": 2,
    }


@pytest.mark.parametrize(
    "lines",
    ["x:", "x: ~", "x: []", "x: >\n  long\n  text", "x:\n  inner: 1", "x:\n  - name: Jo", "# x: 1", "x:1", "- a", "x"],
)
def test_the_rest_has_no_field(lines: str) -> None:
    """What is empty, nested, folded or no YAML is not guessed at."""
    assert front_matter(f"---\nfirst: 1\n{lines}\n---\n")[1] == {"first": 1}


def test_it_is_metadata_of_a_markdown_file() -> None:
    """All fields but the title, whatever type that has; the text stays whole."""
    source = "---\r\ntitle: 2024\r\ntags: [a]\r\n---\r\n# One\r\n"
    document = read_one(source.encode(), "a.md")
    assert (document.title, document.metadata, document.text) == ("2024", {"tags": ["a"]}, source)


@given(st.text(alphabet="ab: -[],'\"#\n1.", max_size=60))
def test_any_head_is_read(head: str) -> None:
    """Nothing that stands there is an error."""
    end, fields = front_matter(f"---\n{head}\n---\nText")
    assert end
    assert all(isinstance(value, str | int | float | list) for value in fields.values())
