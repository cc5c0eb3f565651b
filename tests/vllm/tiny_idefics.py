"""An Idefics 3 of some three megabytes with random weights, which looks at pictures.

Of vLLM's multimodal models it needs no torchvision, whose CPU build no package index of Python has: Pillow scales.
"""

from pathlib import Path

import torch
from transformers import GenerationConfig, Idefics3Config, Idefics3ForConditionalGeneration, LlamaConfig
from transformers.models.idefics3 import Idefics3Processor, Idefics3VisionConfig
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from tests.vllm.tiny_gemma import BOS, CONTEXT, END, EOS, PAD, SEED, TEMPLATE, make_tokenizer

SIDE, PATCH, SHUFFLE = 56, 14, 2
"""Pixels of the square that a picture is scaled to, and of its patches; so many patches a side become one token."""

TOKENS = (SIDE // PATCH // SHUFFLE) ** 2
PICTURE_TOKENS = TOKENS + 3
"""Of a picture in a prompt: those of its patches, the marks around them, and one that says it is all of the picture."""

_TEXT = "{{ item['text'] | trim }}"
_TEXT_OR_PICTURE = "{{ '<image>' if item['type'] == 'image' else item['text'] | trim }}"


def make_tiny_idefics(folder: Path) -> Path:
    """Write model, processor and chat template to `folder`, the same ones each time."""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<global-img>"], special_tokens=True)
    edge = {"longest_edge": SIDE}
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False),
        tokenizer,
        image_seq_len=TOKENS,
        chat_template=TEMPLATE.read_text(encoding="utf-8").replace(_TEXT, _TEXT_OR_PICTURE),
    )
    processor.save_pretrained(folder)
    _model(len(tokenizer), processor.image_token_id).save_pretrained(folder)
    return folder


def _model(vocabulary: int, image_token: int) -> Idefics3ForConditionalGeneration:
    torch.manual_seed(SEED)
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=[EOS, END],
    )
    vision = Idefics3VisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
    )
    config = Idefics3Config(
        text_config=text, vision_config=vision, image_token_id=image_token, scale_factor=SHUFFLE, pad_token_id=PAD
    )
    model = Idefics3ForConditionalGeneration(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=[EOS, END], pad_token_id=PAD)
    return model
