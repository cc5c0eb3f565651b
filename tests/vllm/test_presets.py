"""Whether vLLM takes the command lines that `winnow vllm` prints."""

import json
import subprocess

import pytest

from app.cli.vllm import CARDS, preset
from tests.vllm.running import ENVIRON, MISSING, PYTHON

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]

PARSER = """\
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = make_arg_parser(FlexibleArgumentParser())
told = []
for arguments in json.load(sys.stdin):
    parsed = parser.parse_args(arguments)
    validate_parsed_serve_args(parsed)
    told.append({
        "model": parsed.model_tag, "host": parsed.host, "port": parsed.port,
        "text_only": parsed.language_model_only, "told": parsed.enable_prompt_tokens_details,
        "sequences": parsed.max_num_seqs, "context": parsed.max_model_len, "memory": parsed.gpu_memory_utilization,
        "sampling": parsed.generation_config, "tight_json": parsed.structured_outputs_config.disable_any_whitespace,
    })
print(json.dumps(told))
"""


def test_the_real_parser_takes_every_preset() -> None:
    """And understands each option as it is meant."""
    if not PYTHON.exists():
        pytest.fail(MISSING, pytrace=False)
    commands = [preset(card).command(8001) for card in CARDS]
    assert all(command[:2] == ["vllm", "serve"] for command in commands)
    said = subprocess.run(
        [PYTHON, "-c", PARSER],
        input=json.dumps([command[2:] for command in commands]),
        env=ENVIRON,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr[-2_000:]
    for command, told in zip(commands, json.loads(said.stdout.splitlines()[-1]), strict=True):
        assert told == {
            **{"model": command[2], "host": "127.0.0.1", "port": 8001, "text_only": True, "told": True},
            **{"sequences": int(command[command.index("--max-num-seqs") + 1]), "context": 8_192, "memory": 0.92},
            **{"sampling": "vllm", "tight_json": True},
        }
