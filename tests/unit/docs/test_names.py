"""The documents name only files, modules, classes, functions and pages that exist."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
)

_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:app|indexing|tests|tools|benchmarks|deploy)/[\w/.-]*\w")
_DOTTED = re.compile(r"(?:app|indexing|tests|tools|benchmarks)(?:\.\w+)+")
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_dotted_names_exist(page: str) -> None:
    """Each path in code quotes is in the repository, each dotted name is a module or something defined in one."""
    missing = []
    for quoted in _CODE.findall((ROOT / page).read_text(encoding="utf-8")):
        missing += [path for path in _PATH.findall(quoted) if not (ROOT / path).exists()]
        missing += [name for name in _DOTTED.findall(quoted) if "/" not in quoted and not _is_defined(name)]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Each relative link names a file of the repository, and a heading in it if it has a fragment."""
    here = ROOT / page
    for target, fragment in _LINK.findall(here.read_text(encoding="utf-8")):
        path = (here.parent / target).resolve() if target else here
        assert path.exists(), target
        if fragment:
            assert fragment in map(_anchor, _HEADING.findall(path.read_text(encoding="utf-8"))), (target, fragment)


def test_every_room_of_the_contracts_is_described() -> None:
    """The page on the architecture names each package and module of the import contracts' layers."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    rooms = {
        f"{contract['containers'][0]}.{name}"
        for contract in contracts
        if contract["type"] == "layers"
        for layer in contract["layers"]
        for name in layer.split(" : ")
    }
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert rooms
    assert {room for room in rooms if f"`{room}`" not in page} == set()


def _is_defined(dotted: str) -> bool:
    if dotted.endswith(".py"):
        return True  # a file's name, beside its path
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        module = ROOT.joinpath(*parts[:length])
        for file in (module.with_suffix(".py"), module / "__init__.py"):
            if file.exists():
                return _defines(file, tuple(parts[length:]))
    return False


def _defines(file: Path, names: tuple[str, ...]) -> bool:
    """A module's own name or an imported one, and then a member of a class."""
    body: list[ast.stmt] = _parsed(file).body
    for name in names:
        found = next((node for node in body if name in _names(node)), None)
        if found is None:
            return False
        body = getattr(found, "body", [])
    return True


def _names(node: ast.stmt) -> set[str]:
    match node:
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            return {node.name}
        case ast.Import() | ast.ImportFrom():
            return {alias.asname or alias.name for alias in node.names}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
