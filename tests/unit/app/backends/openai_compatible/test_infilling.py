"""How models that fill in are asked."""

import pytest

from app.backends.base import Infill
from app.backends.openai_compatible.infilling import likely_markers

BETWEEN = Infill(prefix="a = ", suffix="\nb")


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        ("Qwen/Qwen2.5-Coder-7B-Instruct", ["<|fim_prefix|>a = <|fim_suffix|>\nb<|fim_middle|>"]),
        ("qwen3-coder:30b", ["<|fim_prefix|>a = <|fim_suffix|>\nb<|fim_middle|>"]),
        ("google/codegemma-2b", ["<|fim_prefix|>a = <|fim_suffix|>\nb<|fim_middle|>"]),
        ("bigcode/starcoder2-3b", ["<fim_prefix>a = <fim_suffix>\nb<fim_middle>"]),
        (
            "ibm-granite/granite-4.0-h-small",
            ["<fim_prefix>a = <fim_suffix>\nb<fim_middle>", "<|fim_prefix|>a = <|fim_suffix|>\nb<|fim_middle|>"],
        ),
        ("codellama/CodeLlama-7b-hf", ["▁<PRE> a = ▁<SUF>\nb▁<MID>"]),
        ("deepseek-ai/deepseek-coder-1.3b-base", ["<｜fim▁begin｜>a = <｜fim▁hole｜>\nb<｜fim▁end｜>"]),
        ("mistralai/Codestral-22B-v0.1", ["[SUFFIX]\nb[PREFIX]a = "]),
        ("JetBrains/Mellum-4b-base", ["<fim_suffix>\nb<fim_prefix>a = <fim_middle>"]),
        ("ByteDance-Seed/Seed-Coder-8B-Base", ["<[fim-suffix]>\nb<[fim-prefix]>a = <[fim-middle]>"]),
        ("google/gemma-3-4b-it", []),
        ("gpt-5", []),
    ],
)
def test_each_family_has_its_markers(name: str, prompts: list[str]) -> None:
    """By a model's name, or where its files are."""
    assert [markers.prompt(BETWEEN) for markers in likely_markers("coder", name)] == prompts


def test_a_markers_blank_is_no_part_of_its_token() -> None:
    """CodeLlama's."""
    [markers] = likely_markers("codellama")
    assert markers.tokens() == ("▁<PRE>", "▁<SUF>", "▁<MID>")
