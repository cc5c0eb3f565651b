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


def make_tiny_decider(folder: Path) -> Path:
    """The same, but a reply begins with a letter by which vLLM reads the first four options: which one, noise says."""
    return make_tiny_qwen(folder, meant=("A", "B", "C", "D"), seed=2)


def make_tiny_qwen(
    folder: Path, tokens: Sequence[str] = ("yes", "no"), meant: Sequence[str] = (), seed: int = SEED
) -> Path:
    """Write model, tokenizer and chat template to `folder`. These are one token each: "yes" and "no" must be.

    `meant`: tokens in pairs, of which a reply begins with one.
    """
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(list(tokens))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
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
    model = Qwen3ForCausalLM(config)
    _lean(model, tokenizer.convert_tokens_to_ids(list(meant)))
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def _lean(model: Qwen3ForCausalLM, tokens: Sequence[int]) -> None:
    """Give the two of each pair opposite rows of great length: whatever the last state is, one of them is likely.

    Which one depends on the whole prompt, once attention is sharp and weighs as much as the last token. A prompt bears
    a random fence; with rows of 4 instead of 100, for one in eighty of them none of the tokens was likely.
    """
    with torch.no_grad():
        for layer in model.model.layers if tokens else ():
            layer.self_attn.q_norm.weight *= 4
            layer.self_attn.o_proj.weight *= 20
        for one, other in zip(tokens[::2], tokens[1::2], strict=True):
            row = 100 * torch.randn(model.config.hidden_size)
            model.lm_head.weight[one], model.lm_head.weight[other] = row, -row
