"""Nobody sees or writes anything because somebody forgot to say who is asking."""

import ast
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

import app
import indexing

GIVEN = {"audience", "caller", "writer"}
MODULES = [path for package in (app, indexing) for path in Path(package.__path__[0]).rglob("*.py")]


def with_defaults(source: str) -> Iterator[str]:
    """The parameters and fields that need not be given."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            defaults = [None] * (len(positional) - len(node.defaults)) + node.defaults
            pairs = chain(zip(positional, defaults, strict=True), zip(node.kwonlyargs, node.kw_defaults, strict=True))
            yield from (argument.arg for argument, default in pairs if default is not None)
        if isinstance(node, ast.ClassDef):
            fields = (one for one in node.body if isinstance(one, ast.AnnAssign) and one.value is not None)
            yield from (field.target.id for field in fields if isinstance(field.target, ast.Name))


def test_an_audience_is_never_left_out() -> None:
    """No parameter and no field that says who is asking has a default: it would open everything."""
    assert MODULES
    opened = {str(path): GIVEN.intersection(with_defaults(path.read_text("utf-8"))) for path in MODULES}
    assert {path: names for path, names in opened.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "def f(audience=1): ...",
        "def f(a, audience=1, /, b=2): ...",
        "async def f(a, *, b, audience=1): ...",
        "lambda audience=1: 0",
        "class A:\n    audience: int = 1",
    ],
)
def test_each_way_to_have_a_default_is_found(source: str) -> None:
    """Of parameters of every kind, and of fields."""
    assert "audience" in set(with_defaults(source))
