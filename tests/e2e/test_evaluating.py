"""`winnow eval` and `winnow calibrate`, as a shell starts them, with a fake model on a real socket."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from app.evaluation.data import DataSet
from app.ranking.calibration import FITS_FILE
from tests.e2e.test_cli import start, winnow
from tests.fakes.answering_model import AnsweringModel
from tests.fakes.beir import KNOWING, beir_folder
from tests.fakes.faults import Fault
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def scorer() -> OpenAIServer:
    return OpenAIServer(model=FakeModel(name="gemma-3", likely=KNOWING, mind=AnsweringModel()))


def grading(server: OpenAIServer) -> int:
    """The calls that were about passages."""
    return sum("passage" in json.dumps(body) for body in server.bodies("/v1/chat/completions/batch"))


async def test_a_backend_is_chosen(tmp_path: Path) -> None:
    """Standard output is JSON alone, files are written, a second run asks nothing, calibration changes scores."""
    beir_folder(tmp_path / "data")
    arguments = ("eval", "--data", "data", "--backend", "vllm", "--answers", "--json")
    async with scorer() as server:

        async def run(*args: str) -> tuple[int, str, str]:
            return await asyncio.to_thread(
                winnow, tmp_path, *args, VLLM_URL=server.url, WINNOW_RANKING_CONTROLS="false"
            )

        status, out, err = await run(*arguments, "--output", "r.json", "--markdown", "r.md")
        assert status == 0, err
        none, gemma = json.loads(out)["backends"]
        assert not gemma["failed"], gemma["failed"]
        assert gemma["measures"]["nDCG@10"]["mean"] > 0.9
        assert (none["questions"], gemma["questions"]) == (12, 12)
        assert json.loads((tmp_path / "r.json").read_text()) == json.loads(out)
        assert "| vllm (gemma-3) |" in (tmp_path / "r.md").read_text()
        asked = grading(server)
        assert json.loads((await run(*arguments))[1]) == json.loads(out)
        assert grading(server) == asked > 0
        status, out, err = await run("calibrate", "--data", "data", "--backend", "vllm", "--json")
        assert status == 0, err
        assert json.loads(out)["fit"]["positives"] == 8
        assert (tmp_path / ".winnow" / FITS_FILE).read_bytes()
        status, out, _ = await run("usage", "--by", "key", "--json")
        assert {"eval", "calibrate"} <= {row["name"] for row in json.loads(out)["rows"]}
    assert not (tmp_path / ".winnow" / "index").exists()


async def test_it_is_interrupted(tmp_path: Path) -> None:
    """Ctrl-C is status 130 and one line; what was asked is kept, and no fit."""
    beir_folder(tmp_path / "data")
    stuck, calls = asyncio.Event(), 0

    def stick() -> Fault:
        nonlocal calls
        calls += 1
        if calls <= 4:
            return Fault.OK
        stuck.set()
        return Fault.SLOW_FIRST_BYTE

    async with scorer() as server:
        server.slow_s, server.choose = 60.0, stick
        arguments = ("calibrate", "--data", "data", "--backend", "vllm", "--concurrency", "1")
        with start(tmp_path, *arguments, VLLM_URL=server.url, WINNOW_RANKING_CONTROLS="false") as process:
            async with asyncio.timeout(90):
                await stuck.wait()
            process.send_signal(signal.SIGINT)
            _, err = await asyncio.to_thread(process.communicate, timeout=60)
        assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    [journal] = (tmp_path / ".winnow" / "evals" / DataSet(tmp_path / "data").digest[:16]).glob("*.jsonl")
    assert journal.read_text().endswith("}\n")
    assert not (tmp_path / ".winnow" / FITS_FILE).exists()
