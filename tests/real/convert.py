"""A GGUF file as safetensors, by transformers' own reader: `convert.py MODEL.gguf FOLDER [TEMPLATE]`.

Run by the Python of `.venv-vllm`, with `.venv-real` on its path. vLLM reads no GGUF on the processor.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(source: str, folder: str, template: str = "") -> None:
    """Write model and tokenizer to `folder`, which may be missing."""
    path = Path(source)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    if template:
        tokenizer.chat_template = Path(template).read_text(encoding="utf-8")
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.bfloat16)
    # The weights are plain numbers now; what is left of the quantization would be written beside them.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
