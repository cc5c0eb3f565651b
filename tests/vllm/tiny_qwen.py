"""A Qwen3 of a megabyte with random weights: vLLM answers typed questions by such a model, not by a Gemma 3."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from tests.vllm.tiny_gemma import BOS, END, EOS, PAD, SEED, make_tokenizer

CONTEXT = 8_192


MARKERS = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")


def make_tiny_coder(folder: Path) -> Path:
    """The same in a folder of a coder's name, with the tokens that Qwen's coders fill in by."""
    return make_tiny_qwen(folder.with_name("tiny-qwen3-coder"), MARKERS)


def make_tiny_qwen(folder: Path, tokens: Sequence[str] = ("yes", "no")) -> Path:
    """Write model, tokenizer and chat template to `folder`. These are one token each: "yes" and "no" must be."""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(list(tokens))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(SEED)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=[EOS, END],
    )
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder
