"""What of a model's reply is inserted at a cursor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.text.insertion import Block, Insertion


def inserted(prefix: str, *pieces: str) -> str:
    insertion = Insertion(prefix)
    return "".join(map(insertion.feed, pieces)) + insertion.end()


@pytest.mark.parametrize(
    ("prefix", "reply", "expected"),
    [
        ("def f():\n    ", "return 1", "return 1"),
        ("def f():\n    return", " 1\n", " 1\n"),
        ("def f():\n    return", "    return 1", " 1"),
        ("x = ", "```python\n1\n```\nThis is one.", "1"),
        ("x = ", "\n```\n1\n```", "1"),
        ("x = ", "```py\nx = 1\n", "1\n"),
        ("x = ", "`", "`"),
        ("x = ", "", ""),
        ("a\n", "\nb", "\nb"),
    ],
)
def test_fences_and_repeated_lines_are_no_part_of_it(prefix: str, reply: str, expected: str) -> None:
    """Whether the reply comes whole or letter by letter."""
    assert inserted(prefix, reply) == expected
    assert inserted(prefix, *reply) == expected


@given(st.text(alphabet="ab` \n", max_size=20), st.text(alphabet="ab` \n", max_size=30))
def test_the_pieces_do_not_matter(prefix: str, reply: str) -> None:
    """A stream inserts what the whole reply does."""
    assert inserted(prefix, *reply) == inserted(prefix, reply)


def filled(prefix: str, suffix: str, *pieces: str) -> tuple[str, bool]:
    block = Block(prefix, suffix)
    given = ""
    for piece in pieces:
        given += block.feed(piece)
        if block.over:
            break
    return given + block.end(), block.over


@pytest.mark.parametrize(
    ("prefix", "suffix", "reply", "expected"),
    [
        ("x = f(", ")\n", "1, 2\ny = 3\n", "1, 2"),
        ("x = f(", ")\n", "\n    1,\n    2,\n", "\n    1,\n    2,"),
        ("def f(a):", "", "\n    return a\n\n\ndef g(a):\n    pass\n", "\n    return a"),
        ("def f(a):", "", "\n    b = a\n\n    return b\nprint(1)\n", "\n    b = a\n\n    return b"),
        ("def f(a):\n    ", "\n", "b = a\n    return b\nprint(1)\n", "b = a\n    return b"),
        ("if a:", "", "\n    b()\nelse:\n    c()\nd()\n", "\n    b()\nelse:\n    c()"),
        ("x = [", "", "\n    1,\n]\nprint(x)\n", "\n    1,\n]"),
        ("void f() {", "\n", "\n    g();\n}\n\nvoid h() {\n", "\n    g();\n}"),
        ("function f()", "", "\n  g()\nend\n\nf()\n", "\n  g()\nend"),
        ("import os", "", "\nimport sys\n\nx = 1\n", "\nimport sys"),
        ("    return x", "", "\n\ndef g():\n    return 1\n\ndef h():\n", "\n\ndef g():\n    return 1"),
        ("It was a", "", " dark night.\nIt rained.\n\nThen", " dark night.\nIt rained."),
        ("x = ", "", "1\n\n\n", "1"),
        ("x", "", "", ""),
    ],
)
def test_what_is_filled_in_ends_with_its_block(prefix: str, suffix: str, reply: str, expected: str) -> None:
    """At the end of the line if something follows there; else before a dedent, the end of the block, or a new one."""
    text, over = filled(prefix, suffix, reply)
    assert text == expected
    assert filled(prefix, suffix, *reply) == (text, over)


_TEXTS = st.text(alphabet="a} \n", max_size=24)


@given(_TEXTS, st.sampled_from(["", ")", "\nb"]), _TEXTS)
def test_the_pieces_of_a_filling_do_not_matter(prefix: str, suffix: str, reply: str) -> None:
    """A stream inserts what the whole reply does, which begins with it."""
    text, _ = filled(prefix, suffix, reply)
    assert filled(prefix, suffix, *reply)[0] == text
    assert reply.startswith(text)
