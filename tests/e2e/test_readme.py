"""The README's promises, kept in a fresh clone on a path with a space in it."""

from pathlib import Path

import pytest

from tests.e2e.readme import commands, fresh_reader, is_service

ROOT = Path(__file__).resolve().parents[2]

RESTART_S = 30.0


@pytest.mark.slow
@pytest.mark.timeout(2700)
def test_the_commands_of_the_readme_work_in_a_fresh_clone(tmp_path: Path) -> None:
    """`make run` serves, every further command succeeds, and a second `make run` starts without installing."""
    reader = fresh_reader(ROOT, tmp_path / "a fresh clone")
    blocks = commands((reader.folder / "README.md").read_text(encoding="utf-8"))
    services = [block for block in blocks if is_service(block)]
    assert len(services) == 1

    with reader.serving():
        output = reader.type_in([block for block in blocks if not is_service(block)])
    assert '"answerable":true' in output.replace(" ", "")

    with reader.serving(RESTART_S) as log:
        assert "Installing" not in log.read_text(encoding="utf-8")
