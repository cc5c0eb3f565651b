"""A cross-encoder of a few thousand random weights, as sentence-transformers and vLLM load it."""

from pathlib import Path

_WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "is", "of", "a", "in", "to", "and", "office", "opens", "at", "nine", "dental", "cover", "kettle", "hot"),
    *"abcdefghijklmnopqrstuvwxyz0123456789?.,:",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"),
)


def make_tiny_cross_encoder(folder: Path, labels: int = 1) -> Path:
    """Write it there; return the folder. The same every time."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(_WORDS),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,  # of 64: vLLM on a processor takes none of 16
        intermediate_size=64,
        max_position_embeddings=128,
        num_labels=labels,
        initializer_range=1.0,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(vocab={word: number for number, word in enumerate(_WORDS)}, model_max_length=128).save_pretrained(
        folder
    )
    return folder
