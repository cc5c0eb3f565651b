"""What an index takes in memory, disk, hours and dollars, by arithmetic: docs/scale.md has its tables."""

import argparse
import math

import msgspec

TEXT = 775
"""Bytes of a passage's text: the mean of SQuAD's paragraphs, for which the sizes below were read off the disk."""

OF_TEXT = {"payload": 1.0, "sparse vectors": 0.56, "sparse index": 0.44}
"""Bytes on the disk for each byte of text; the words' index is in memory too, where it is used."""

FIXED = {"payload index": 365, "ids": 30, "graph": 128}
"""Bytes of a passage. Of the graph the 32 links of its lowest level, uncompressed."""

BYTES_PER_NUMBER = {"none": 0.0, "scalar": 1.0, "binary": 1 / 8}
"""Of the quantized vectors, which are beside the whole ones."""

DOCUMENTED = 1.5
"""Qdrant's rule for vectors in memory: numbers x 4 bytes x this."""

MEMORY_FILL, DISK_FILL = 0.75, 0.67
"""How far a node is filled: the rest is for queries and caches, and for segments that are being rewritten."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """An index, the machines for it, and what these cost. Prices and speeds are inputs: put in your own."""

    passages: float = 1e9
    dimensions: int = 384
    quantization: str = "scalar"
    whole_in_memory: bool = False
    text_bytes: int = TEXT
    copies: int = 2
    node_gb: float = 256
    node_disk_gb: float = 2000
    node_usd_per_month: float = 1000
    encoded_per_s: float = 49
    encoder_usd_per_hour: float = 0.1

    @property
    def parts(self) -> dict[str, float]:
        """Bytes of a passage on the disk."""
        vectors = {
            "whole vector": 4.0 * self.dimensions,
            "quantized vector": BYTES_PER_NUMBER[self.quantization] * self.dimensions,
        }
        return vectors | {name: share * self.text_bytes for name, share in OF_TEXT.items()} | FIXED

    @property
    def memory_bytes(self) -> float:
        """Bytes of a passage that searches want in memory. The whole vectors, if nothing stands for them."""
        held = ["quantized vector", "sparse index", *FIXED]
        if self.whole_in_memory or self.quantization == "none":
            held.append("whole vector")
        return sum(self.parts[name] for name in held)

    @property
    def disk_bytes(self) -> float:
        """Bytes of a passage on the disk."""
        return sum(self.parts.values())

    @property
    def memory_gb(self) -> float:
        """Of the whole cluster."""
        return self.memory_bytes * self.passages * self.copies / 1e9

    @property
    def disk_gb(self) -> float:
        """Of the whole cluster."""
        return self.disk_bytes * self.passages * self.copies / 1e9

    @property
    def nodes(self) -> int:
        """By memory or disk, whichever takes more; as many as there are copies."""
        by_memory = self.memory_gb / (self.node_gb * MEMORY_FILL)
        by_disk = self.disk_gb / (self.node_disk_gb * DISK_FILL)
        return max(self.copies, math.ceil(max(by_memory, by_disk)))

    @property
    def usd_per_month(self) -> float:
        """Of the nodes."""
        return self.nodes * self.node_usd_per_month

    @property
    def encoder_hours(self) -> float:
        """Of one encoder, to index all of it once."""
        return self.passages / self.encoded_per_s / 3600

    @property
    def encoder_usd(self) -> float:
        """Of those hours."""
        return self.encoder_hours * self.encoder_usd_per_hour


def passage_rows() -> list[str]:
    """Bytes of a passage, by dimensions and quantization, as a table's lines."""
    rows = []
    for dimensions in (384, 768, 1024):
        for quantization in BYTES_PER_NUMBER:
            plan = Plan(dimensions=dimensions, quantization=quantization)
            rule = f"{4 * dimensions * DOCUMENTED:,.0f}" if quantization == "none" else ""
            name = "float32" if quantization == "none" else quantization
            cells = (f"{plan.memory_bytes:,.0f}", rule, f"{plan.disk_bytes:,.0f}")
            million = f"{64_000 * MEMORY_FILL / plan.memory_bytes:.0f}"
            rows.append(f"| {dimensions} | {name} | {' | '.join(cells)} | {million} |")
    return rows


def size_rows(plan: Plan) -> list[str]:
    """What `plan` takes at a million, ten, a hundred and a thousand million passages, as a table's lines."""
    rows = []
    for passages in (1e6, 1e7, 1e8, 1e9):
        one = msgspec.structs.replace(plan, passages=passages)
        cells = (
            f"{passages:,.0f}",
            f"{one.memory_gb:,.1f} GB" if one.memory_gb < 100 else f"{one.memory_gb:,.0f} GB",
            f"{one.disk_gb:,.1f} GB" if one.disk_gb < 100 else f"{one.disk_gb:,.0f} GB",
            f"{one.nodes}",
            f"{2 * one.nodes}",
            f"${one.usd_per_month:,.0f}",
            f"{one.encoder_hours:,.1f}" if one.encoder_hours < 100 else f"{one.encoder_hours:,.0f}",
            f"${one.encoder_usd:,.0f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Print both tables for the inputs given."""
    parser = argparse.ArgumentParser(description=__doc__)
    for field in msgspec.structs.fields(Plan):
        flag = f"--{field.name.replace('_', '-')}"
        if field.type is bool:
            parser.add_argument(flag, action="store_true")
        else:
            choices = list(BYTES_PER_NUMBER) if field.name == "quantization" else None
            parser.add_argument(flag, type=field.type, default=field.default, choices=choices)
    plan = Plan(**vars(parser.parse_args()))
    print("| dimensions | vectors | memory | rule | disk | millions in 64 GB |", *passage_rows(), sep="\n")
    print()
    print("| passages | memory | disk | nodes | shards | a month | hours | to index |", *size_rows(plan), sep="\n")
    print(
        f"\n{plan.passages:,.0f} passages: {plan.memory_gb:,.0f} GB of memory, {plan.disk_gb:,.0f} GB of disk, ", end=""
    )
    print(f"{plan.nodes} nodes, ${plan.usd_per_month:,.0f} a month; {plan.encoder_hours:,.0f} hours to encode")


if __name__ == "__main__":
    main()
