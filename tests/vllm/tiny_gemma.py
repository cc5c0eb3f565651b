"""A Gemma 3 of some two megabytes with random weights: its answers are noise, its turns and tokens are Gemma's."""

from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from transformers import Gemma3ForCausalLM

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = Path(__file__).with_name("gemma_template.jinja")
# Texts that stay as they are: with their words the tokens change, and with the tokens what the model says.
TEXTS = ("LICENSE", "app/samples/employee-handbook.md", "app/samples/support-faq.html")

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
PAD, EOS, BOS, UNKNOWN, START, END = range(6)

SEED = 20_250_312
VOCABULARY = 2_048
CONTEXT = 8_192


def make_tiny_gemma(folder: Path) -> Path:
    """Write model, tokenizer and chat template to `folder`, the same ones each time."""
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    _model(len(tokenizer)).save_pretrained(folder)
    return folder


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level: every text has tokens. A digit is a token, as Gemma's are; encoding puts one <bos> in front."""
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    bpe.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train([str(ROOT / name) for name in TEXTS], trainer)
    bpe.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        chat_template=TEMPLATE.read_text(encoding="utf-8"),
        model_max_length=CONTEXT,
    )


def _model(vocabulary: int) -> "Gemma3ForCausalLM":
    # These take seconds to import, and tests of text use the tokenizer alone.
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GenerationConfig

    torch.manual_seed(SEED)
    config = Gemma3TextConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        sliding_window=1_024,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=[EOS, END],
    )
    model = Gemma3ForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        bos_token_id=BOS, eos_token_id=[EOS, END], pad_token_id=PAD, do_sample=True, top_k=64, top_p=0.95
    )
    return model
