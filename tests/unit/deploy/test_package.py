"""What an installed package has beside its modules."""

import fnmatch
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("package", ["app", "indexing"])
def test_data_files_are_installed(package: str) -> None:
    """What is no module is named by the package's data, else it would exist in the repository alone."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"][
        package
    ]
    files = [path for path in (ROOT / package).rglob("*.*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    for file in (path.relative_to(ROOT / package).as_posix() for path in files):
        assert any(fnmatch.fnmatch(file, pattern) for pattern in patterns), file
