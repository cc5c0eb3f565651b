"""Damaged PDFs: are all of them read or refused with a known reason, within the limits?

    python -m benchmarks.damaged_pdfs FILE... [--count 200] [--seconds 20] [--memory-mib 1024]

The files are damaged in turn, seeded: cut, bytes changed, parts left out, doubled, exchanged or blanked, numbers blown
up, words of the format exchanged. Each is read in the reader's child process under these limits. Printed: what came of
them, the slowest, and the most memory that a child took. Exit status 1 where one is neither read nor refused with a
known reason, or a limit was passed by more than a tenth.
"""

import argparse
import asyncio
import random
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from indexing.errors import UnreadableDocument
from indexing.readers import REASONS, ReadLimits
from indexing.readers.sandbox.pool import ReaderPool

_NUMBER = re.compile(rb"(?<=[ /])\d+(?=[ \r\n/>\]])")
_WORD = re.compile(rb"/[A-Z][A-Za-z]+")
_HUGE = (b"-1", b"0", b"65536", b"999999999", b"4294967296", b"1e30")
_MIB = 2**20


def main() -> int:
    """Damage, read, count."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--memory-mib", type=int, default=1024)
    options = parser.parse_args()
    limits = ReadLimits(max_seconds=options.seconds, max_memory_bytes=options.memory_mib * _MIB, ocr="off")
    results, slowest = asyncio.run(_read(options.files, options.count, limits))
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{results.total()} damaged PDFs: " + ", ".join(f"{count} {what}" for what, count in results.most_common()))
    print(f"slowest: {slowest:.1f} s of {limits.max_seconds:g}; most memory: {memory:.0f} MiB of {options.memory_mib}")
    unknown = results.keys() - {"read", *REASONS}
    return int(bool(unknown) or slowest > 1.1 * limits.max_seconds or memory > 1.1 * options.memory_mib)


async def _read(files: list[Path], count: int, limits: ReadLimits) -> tuple[Counter[str], float]:
    dice, results, slowest = random.Random(1), Counter[str](), 0.0
    async with ReaderPool(limits) as pool:
        await pool.read(b"start", "start.txt")
        for number in range(count):
            damaged = _damaged((await asyncio.to_thread(files[number % len(files)].read_bytes)), dice)
            started = time.perf_counter()
            try:
                await pool.read(damaged, "damaged.pdf", "application/pdf")
                results["read"] += 1
            except UnreadableDocument as refusal:
                results[refusal.reason] += 1
            slowest = max(slowest, time.perf_counter() - started)
    return results, slowest


def _damaged(data: bytes, dice: random.Random) -> bytes:
    """The file, damaged in one way or several."""
    for _ in range(dice.choice((1, 1, 2, 5))):
        data = dice.choice(_WAYS)(data, dice)
    return data


def _ends(data: bytes, dice: random.Random) -> tuple[int, int]:
    begin = dice.randrange(len(data) + 1)
    return begin, min(len(data), begin + dice.choice((1, 20, 500, 20_000)))


def _cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _changed(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 30, 1000)) if data else 0):
        changed[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(changed)


def _without(data: bytes, dice: random.Random) -> bytes:
    begin, end = _ends(data, dice)
    return data[:begin] + data[end:]


def _blanked(data: bytes, dice: random.Random) -> bytes:
    begin, end = _ends(data, dice)
    return data[:begin] + bytes(end - begin) + data[end:]


def _doubled(data: bytes, dice: random.Random) -> bytes:
    begin, end = _ends(data, dice)
    return data[:end] + data[begin:]


def _moved(data: bytes, dice: random.Random) -> bytes:
    begin, end = _ends(data, dice)
    place = dice.randrange(len(data) + 1)
    rest = data[:begin] + data[end:]
    return rest[:place] + data[begin:end] + rest[place:]


def _blown_up(data: bytes, dice: random.Random) -> bytes:
    return _exchanged(_NUMBER, lambda: dice.choice(_HUGE), data, dice)


def _misnamed(data: bytes, dice: random.Random) -> bytes:
    words = [match[0] for match in islice(_WORD.finditer(data), 5000)] or [b"/X"]
    return _exchanged(_WORD, lambda: dice.choice(words), data, dice)


def _exchanged(what: re.Pattern[bytes], value: Callable[[], bytes], data: bytes, dice: random.Random) -> bytes:
    """With a few of these exchanged."""
    places = [match.span() for match in what.finditer(data)]
    for begin, end in sorted(dice.sample(places, min(len(places), dice.choice((1, 10)))), reverse=True):
        data = data[:begin] + value() + data[end:]
    return data


_WAYS = (_cut, _changed, _without, _blanked, _doubled, _moved, _blown_up, _misnamed)


if __name__ == "__main__":
    sys.exit(main())
