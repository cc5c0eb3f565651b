"""What `make mutants` changes."""

import ast

import pytest

from tools.mutants import PURE, ROOT, Mutator, with_tests


@pytest.mark.parametrize("path", PURE)
def test_every_listed_module_has_tests(path: str) -> None:
    """A module that moves takes its place in the list along."""
    assert with_tests(ROOT / path)


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("a < b", ["a <= b"]),
        ("not a or b", ["not a and b", "a or b"]),
        ("x = a + 1", ["x = a - 1", "x = a + 2"]),
        ("x: int = 0", ["x: int = 1"]),
        ("def f(a: Literal[1] = True): ...", ["def f(a: Literal[1]=False):\n    ..."]),
        ("print('text')", []),
    ],
)
def test_one_place_is_changed_at_a_time(source: str, changes: list[str]) -> None:
    """Operators and constants are places; texts and annotations are none."""
    counting = Mutator()
    counting.visit(ast.parse(source))
    assert [ast.unparse(Mutator(place).visit(ast.parse(source))) for place in range(counting.places)] == changes
