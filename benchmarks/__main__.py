"""Lists the benchmarks: `python -m benchmarks`."""

import ast
from pathlib import Path

FOLDER = Path(__file__).parent


def listing(folder: Path) -> str:
    """A line for each module with a `main`: the command and the first line of its docstring."""
    lines = [_line(path) for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")]
    return "\n".join(line for line in lines if line)


def _line(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "main" for node in tree.body):
        return ""
    doc = (ast.get_docstring(tree) or "").partition("\n")[0]
    return f"python -m benchmarks.{path.stem:<20} {doc}"


if __name__ == "__main__":
    print(listing(FOLDER))
