"""What the packages remember, they remember a bounded number of."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNBOUNDED = {"cache", "functools.cache", "lru_cache(None)", "lru_cache(maxsize=None)"}
OF_FEW = {
    "_compiled": "patterns of the package's own rules",
    "_decoder": "types of request bodies",
    "_weights": "alphabets of the package's own tables",
    "load_page": "the folder of the page",
    "number_words": "languages",
}
"""What may be remembered without a bound, for its arguments are no texts of clients."""


def unbounded_caches(source: str) -> Iterator[str]:
    """Functions of a module's or a class's own that remember a result for every argument they ever get."""
    for node in ast.walk(ast.parse(source)):
        for statement in node.body if isinstance(node, ast.Module | ast.ClassDef) else ():
            match statement:
                case ast.FunctionDef(decorator_list=decorators) if ast.unparse(statement.args):
                    if not UNBOUNDED.isdisjoint(map(ast.unparse, decorators)):
                        yield statement.name
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=function)):
                    if ast.unparse(function) in UNBOUNDED:
                        yield name


def test_every_cache_of_texts_has_a_bound() -> None:
    """A service that is never asked the same twice does not grow with what it is asked."""
    seen = "@cache\ndef page(name): ...\n\n@cache\ndef table(): ...\n\nfound = lru_cache(None)(find)\n"
    assert [*unbounded_caches(seen)] == ["page", "found"]
    sources = [path.read_text("utf-8") for package in ("app", "indexing") for path in (ROOT / package).rglob("*.py")]
    assert {name for source in sources if "cache" in source for name in unbounded_caches(source)} == OF_FEW.keys()
