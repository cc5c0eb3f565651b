"""The log of a process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]

PROGRAM = """
import logging, structlog
from app.observability.logging import configure_logging
configure_logging({form!r}, {level!r})
log = structlog.get_logger()
log.debug("quiet"); log.info("told", id="7")
def fail(passage):
    raise ValueError("broken")
try:
    fail("confidential words")
except ValueError:
    log.exception("it fell")
logging.getLogger("uvicorn.error").info("from uvicorn")
logging.getLogger("httpx").info("from httpx")
logging.getLogger("httpx").warning("httpx warns")
"""


def run(form: str, level: str = "info") -> list[str]:
    """What a process with this logging writes to standard error."""
    program = PROGRAM.format(form=form, level=level)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.parametrize("form", ["json", "auto"])
def test_every_line_is_one_json_object(form: str) -> None:
    """JSON on request and off a terminal; libraries' lines too, their chatter left out."""
    lines = [json.loads(line) for line in run(form)]
    assert [line["event"] for line in lines] == ["told", "it fell", "from uvicorn", "httpx warns"]
    assert lines[0] | {"id": "7", "level": "info"} == lines[0]
    assert all("timestamp" in line for line in lines)


@pytest.mark.parametrize("form", ["json", "text"])
def test_an_exception_is_logged_without_local_variables(form: str) -> None:
    """A trace tells where, not what was in the passages."""
    told = "\n".join(run(form))
    assert "broken" in told
    assert "confidential words" not in told.replace('fail("confidential words")', "")


def test_the_level_is_kept() -> None:
    """Below the level nothing is written."""
    assert [json.loads(line)["event"] for line in run("json", "error")] == ["it fell"]
    assert any("quiet" in line for line in run("json", "debug"))
