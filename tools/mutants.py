"""Changes one operator or constant of a module at a time and says which changes its unit tests do not notice.

`make mutants` samples the pure modules, `make mutants ARGS="app/text/terms.py --each 40"` one of them more closely. A
surviving mutant is a question, not a fault: many are equivalent to the original.
"""

import argparse
import ast
import os
import random
import resource
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parents[1]
PURE = (
    "app/accounting/budgets.py",
    "app/accounting/estimator",
    "app/ranking/calibration.py",
    "app/ranking/passages.py",
    "app/ranking/scoring.py",
    "app/retrieval",
    "app/text",
    "indexing/chunking",
    "indexing/filters.py",
    "indexing/retrieval",
)
"""Code without input and output, so that its tests are fast."""
CPU_S = 120
"""A mutant that never ends counts as noticed."""

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}


class Mutator(ast.NodeTransformer):
    """Counts the places that can be changed, and changes the one of number `chosen`."""

    def __init__(self, chosen: int = -1) -> None:
        self.places = 0
        self.change = ""
        self._chosen = chosen

    def visit(self, node: ast.AST) -> ast.AST:
        """Visit `node`, and change it if it is the chosen one."""
        if isinstance(node, ast.arg):
            return node  # an annotation is not behaviour
        if isinstance(node, ast.AnnAssign):
            node.value = node.value and self.visit(node.value)  # type: ignore[assignment]
            return node
        swap = _changed(node)
        if swap is not None:
            self.places += 1
            if self.places - 1 == self._chosen:
                self.change = f"line {node.lineno}: {ast.unparse(node)}  ->  {ast.unparse(swap)}"  # type: ignore[attr-defined]
                return ast.copy_location(swap, node)
        return self.generic_visit(node)


def _changed(node: ast.AST) -> ast.expr | None:
    """`node` with another operator or constant; None if it has none that we change."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=right) if type(op) in SWAPS:
            return ast.Compare(left, [SWAPS[type(op)]()], right)  # type: ignore[list-item]
        case ast.BoolOp(op=op, values=values):
            return ast.BoolOp(SWAPS[type(op)](), values)  # type: ignore[arg-type]
        case ast.BinOp(left=left, op=op, right=other) if type(op) in SWAPS and not isinstance(left, ast.Constant):
            return ast.BinOp(left, SWAPS[type(op)](), other)  # type: ignore[arg-type]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return operand
        case ast.Constant(value=bool() as value):
            return ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            return ast.Constant(value + 1)
    return None


class MutantFinder(SourceFileLoader):
    """Imports the module at `path` with one place changed; the file stays as it is."""

    def __init__(self, path: Path, chosen: int) -> None:
        super().__init__(".".join(path.relative_to(ROOT).with_suffix("").parts), str(path))
        self._chosen = chosen

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        """Ours for that module, nothing for any other."""
        return spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        """The changed code, past the cache of compiled modules."""
        tree = Mutator(self._chosen).visit(ast.parse(Path(self.path).read_bytes()))
        return compile(ast.fix_missing_locations(tree), self.path, "exec")  # type: ignore[call-overload, no-any-return]


def survives(path: Path, tests: Sequence[Path], chosen: int) -> bool:
    """Whether the tests pass with place `chosen` changed (-1: none), in a fork that has pytest loaded already."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    sys.meta_path.insert(0, MutantFinder(path, chosen))
    os._exit(pytest.main(["-x", "-p", "no:cacheprovider", *map(str, tests)]))


def main(arguments: list[str]) -> int:
    """Print the survivors of each module. Exit status 1 where tests fail on unchanged code."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("paths", nargs="*", default=PURE, help="modules, or packages of modules with unit tests")
    parser.add_argument("--each", type=int, default=8, help="mutants of each module (8)")
    parser.add_argument("--seed", type=int, default=1, help="chooses which (1)")
    options = parser.parse_args(arguments)
    for module, tests in (pair for path in options.paths for pair in with_tests(ROOT / path)):
        name = module.relative_to(ROOT)
        if not survives(module, tests, -1):
            print(f"{name}: its tests fail as it is", file=sys.stderr)
            return 1
        places = mutated(module).places
        chosen = random.Random(options.seed).sample(range(places), min(options.each, places))  # noqa: S311 - no secret
        survivors = [place for place in sorted(chosen) if survives(module, tests, place)]
        print(f"{name}: {len(chosen) - len(survivors)} of {len(chosen)} mutants noticed", flush=True)
        for place in survivors:
            print(f"  {mutated(module, place).change}", flush=True)
    return 0


def with_tests(path: Path) -> list[tuple[Path, list[Path]]]:
    """The modules at or below `path` that have unit tests, each with the file or folder of tests that mirrors it."""
    pairs = []
    for module in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        mirror = ROOT / "tests" / "unit" / module.parent.relative_to(ROOT)
        tests = [test for test in (mirror / f"test_{module.name}", mirror / module.stem) if test.exists()]
        if tests:
            pairs.append((module, tests))
    return pairs


def mutated(module: Path, chosen: int = -1) -> Mutator:
    """What was counted in `module`, and changed where a place is chosen."""
    mutator = Mutator(chosen)
    mutator.visit(ast.parse(module.read_bytes()))
    return mutator


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
