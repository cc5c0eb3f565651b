"""Damages the home of a service in all the ways that `benchmarks.corruption_kinds` lists, and starts the service on it.

    python -m benchmarks.corruption [--only TEXT] [--verbose]

Three collections: one from files, one handed over by HTTP, and one of both, which is the one that is damaged. A damage
is survived if the service is up, the other two collections serve, the damaged one serves all it had or is isolated
(503, with the commands that mend it), nothing was deleted, and the commands do mend it, also for the next start.
`winnow snapshot restore` is tried on a second copy. Where the manifest, which is of all collections, is not the one
that belongs to the index, readiness must warn, and what it names must mend all of them. The embedder is a fake one.
Exit status 1 if one was not survived.
"""

import argparse
import asyncio
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import httpx
import msgspec

from benchmarks.corruption_kinds import CORRUPTIONS, DAMAGED, OLDER, Corruption
from benchmarks.service import DidNotStart, Service, detail, documents, found, put, rare_word, text_of

FILES, NOTES = "files", "notes"
EACH = 5
SENTENCES = 60
PATIENCE_S, STARTING_S = 12.0, 30.0
SMALL = 1 << 20
TRANSIENT = (
    r"payload_index|tracker_journal|open-\d|closed-|first-index|sealed|in-use|-wal$|-shm$|\.new$|^lock$|service\.json"
)
"""Files that come and go: the engine rewrites its logs and the indexes of payloads at will."""

REPAIR, UPGRADE = "winnow collections repair", "upgrade, or restore a snapshot"
"""What readiness says where the manifest is not the one that belongs to the index."""

MENDS, REFUSES = "mends", "refuses"
"""What a command does that an isolated collection names. It may refuse where it would lose documents."""

State = Literal["served", "isolated", "warned", "wrong"]


class Expected(msgspec.Struct):
    """The rare word of each document, by its collection and id; and which snapshots there are, by collection."""

    words: dict[str, dict[str, str]]
    snapshots: dict[str, str]


class Outcome(msgspec.Struct, kw_only=True):
    """What became of a damaged home. `troubles` are what should not be."""

    name: str
    state: State | None = None
    ready: str = ""
    message: str = ""
    ways: dict[str, str] = {}
    troubles: list[str] = []


class Home:
    """The undamaged home, in two forms: of a service that was stopped, and of one that was killed."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.expected = Expected({FILES: {}, NOTES: {}, DAMAGED: {}}, {})

    async def build(self) -> None:
        """Write all documents twice, so that there is something deleted, and take snapshots."""
        service = self.service("stopped")
        await service.start()
        await service.until_ready()
        await self._write(service, "first", EACH)
        await service.terminate()
        shutil.copytree(service.home, self.scratch / OLDER)
        await service.start()
        await service.until_ready()
        await self._write(service, "second", EACH + 1)
        for collection in self.expected.words:
            path = self.scratch / f"{collection}.snapshot"
            status, _ = await service.run("snapshot", "create", "--collection", collection, "--output", str(path))
            if status == 0:
                self.expected.snapshots[collection] = str(path)
        await service.terminate()
        copy(service.home, self.scratch / "killed")
        killed = self.service("killed")
        await killed.start()
        await killed.until_ready()
        await self._write(killed, "third", EACH + 1, only_submitted=True)
        killed.kill()

    def service(self, name: str) -> Service:
        """A service on the home of that name."""
        return Service(self.scratch / name, self.scratch / "service.log")

    def words(self, *, unclean: bool) -> dict[str, dict[str, str]]:
        """Those of the home of a killed service differ."""
        return {
            collection: {
                key: rare_word("third", collection, key) if unclean and not key.startswith("file-") else word
                for key, word in words.items()
            }
            for collection, words in self.expected.words.items()
        }

    async def _write(self, service: Service, edition: str, count: int, *, only_submitted: bool = False) -> None:
        for collection in (FILES, DAMAGED):
            folder = self.scratch / "texts" / collection
            folder.mkdir(parents=True, exist_ok=True)
            words = {f"file-{number}": rare_word(edition, collection, number) for number in range(count)}
            if not only_submitted:
                for name, word in words.items():
                    (folder / f"{name}.txt").write_text(text_of(word, SENTENCES))
                status, output = await service.run("index", str(folder), "--collection", collection)
                assert status == 0, output
                self.expected.words[collection] |= words
        async with service.client() as client:
            for collection in (NOTES, DAMAGED):
                words = {f"d{number}": rare_word(edition, collection, f"d{number}") for number in range(count)}
                (await put(client, collection, documents(words, SENTENCES))).raise_for_status()
                if not only_submitted:
                    self.expected.words[collection] |= words


def copy(source: Path, target: Path) -> None:
    """With times and holes: the files of a shard are mostly empty."""
    subprocess.run(["cp", "-a", "--sparse=always", str(source), str(target)], check=True)


async def state_of(client: httpx.AsyncClient, collection: str, words: Mapping[str, str]) -> tuple[State, str]:
    """Whether each document is there by GET and by search; what is wrong, or the message of the isolation."""
    response = await client.get("/documents", params={"collection": collection, "limit": 1000})
    if response.status_code == 503:
        return ("isolated" if "winnow " in detail(response) else "wrong"), detail(response)
    if response.status_code != 200:
        return "wrong", f"GET /documents: {response.status_code} {detail(response)}"
    listed = len(response.json()["documents"])
    missing = []
    for key, word in words.items():
        try:
            hits = await found(client, collection, word)
        except httpx.HTTPStatusError as exc:
            if exc.response.status_code == 503 and "winnow " in detail(exc.response):
                return "isolated", detail(exc.response)
            return "wrong", f"/search: {exc.response.status_code} {detail(exc.response)}"
        path = f"/documents/{hits[0]['document_id'] if hits else key}"
        shown = await client.get(path, params={"collection": collection})
        if not hits or word not in hits[0]["text"].lower() or shown.status_code != 200:
            missing.append(f"{key} (search {len(hits)}, GET {shown.status_code})")
    if missing or listed != len(words):
        return "wrong", f"{listed} of {len(words)} listed, missing: {', '.join(missing)}"
    return "served", ""


async def settled(client: httpx.AsyncClient, collection: str, words: Mapping[str, str]) -> tuple[State, str]:
    """As `state_of`, with patience for what heals by itself."""
    begun = time.perf_counter()
    while True:
        state, what = await state_of(client, collection, words)
        if state != "wrong" or time.perf_counter() - begun > PATIENCE_S:
            return state, what
        await asyncio.sleep(0.5)


def names(home: Path) -> set[str]:
    """The files that must not vanish. Those of a segment by their place in it, wherever it lies."""
    files = (path.relative_to(home).parts for path in home.rglob("*") if path.is_file())
    return {"/".join(parts[parts.index("segments") + 1 :] if "segments" in parts else parts[-1:]) for parts in files}


def digests(home: Path) -> set[str]:
    """Of the contents of all small files."""
    small = (path for path in home.rglob("*") if path.is_file() and path.stat().st_size < SMALL)
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in small}


class Before(msgspec.Struct, frozen=True):
    """What lay in the damaged home: the names of its files, and the contents that must be kept."""

    names: set[str]
    digests: set[str]

    def gone(self, home: Path) -> list[str]:
        """What is no more, neither in its place nor in quarantine."""
        missing = [name for name in sorted(self.names - names(home)) if not re.search(TRANSIENT, name)]
        return [*missing, *("the bytes of a damaged file" for _ in self.digests - digests(home))]


async def survive(home: Home, corruption: Corruption) -> Outcome:
    """Damage a copy, start the service on it, and try what it says."""
    outcome = Outcome(name=corruption.name)
    service = home.service("damaged")
    words = home.words(unclean=corruption.unclean)
    try:
        before = await _damage(home, service, corruption, outcome)
        if before is None:
            return outcome
        await _judge(service, outcome, words, before)
        if outcome.state == "isolated":
            await _mend(home, service, corruption, outcome, words)
        elif outcome.state == "warned":
            await _do_as_warned(service, corruption, outcome, words)
    except (DidNotStart, TimeoutError, httpx.HTTPError, AssertionError) as exc:
        outcome.troubles.append(f"{type(exc).__name__}: {str(exc)[-600:]}")
    finally:
        service.kill()
        if service.unexpected:
            outcome.troubles.append("a traceback in the log")
        shutil.rmtree(service.home, ignore_errors=True)
    return outcome


async def _damage(home: Home, service: Service, corruption: Corruption, outcome: Outcome) -> Before | None:
    """Returns what lies in the damaged home; None where there is nothing of the kind to damage."""
    copy(home.scratch / ("killed" if corruption.unclean else "stopped"), service.home)
    if corruption.while_it_runs:
        await service.start(STARTING_S)
        await service.until_ready(STARTING_S)
    untouched = digests(service.home)
    try:
        corruption.apply(service.home)
    except FileNotFoundError as exc:
        outcome.ready = f"not applicable: {exc}"
        return None
    before = Before(names(service.home), digests(service.home) - untouched if corruption.bytes_kept else set())
    if corruption.while_it_runs:
        await _write_on(service, outcome)
    return before


async def _write_on(service: Service, outcome: Outcome) -> None:
    """Whatever a write to the damaged collection is answered, the others go on; then stop the service."""
    async with service.client() as client:
        for collection in (FILES, NOTES, DAMAGED):
            response = await put(client, collection, documents({"late": "late"}, 1))
            allowed = (200, 503) if collection == DAMAGED else (200,)
            if response.status_code not in allowed:
                outcome.troubles.append(f"while it ran: {response.status_code} from a write to {collection}")
            await client.delete("/documents/late", params={"collection": collection})
    seconds, status = await service.terminate()
    if status != 0:
        outcome.troubles.append(f"SIGTERM: status {status} after {seconds:.1f} s")


async def _judge(service: Service, outcome: Outcome, words: Mapping[str, Mapping[str, str]], before: Before) -> None:
    """Start it and look at all three collections."""
    await service.start(STARTING_S)
    async with service.client() as client:
        seen = {collection: await settled(client, collection, words[collection]) for collection in words}
        ready = await client.get("/health/ready")
    warned = REPAIR in ready.text or UPGRADE in ready.text
    outcome.state, outcome.message = seen.pop(DAMAGED)
    outcome.ready = f"{ready.status_code}{', names it' if warned or DAMAGED in ready.text else ''}"
    if outcome.state == "wrong" and warned:
        outcome.state = "warned"
    else:
        seen[DAMAGED] = ("wrong" if outcome.state == "wrong" else "served", outcome.message)
        outcome.troubles += [f"{name}: {it}: {what[:300]}" for name, (it, what) in seen.items() if it != "served"]
    if missing := before.gone(service.home):
        outcome.troubles.append(f"deleted: {len(missing)} files, such as {missing[:3]}")


async def _mend(
    home: Home, service: Service, corruption: Corruption, outcome: Outcome, words: Mapping[str, Mapping[str, str]]
) -> None:
    """Run the commands that the message names: the first on this home, a restore on another copy."""
    named = [command for command in ("index --rebuild", "snapshot restore") if f"winnow {command}" in outcome.message]
    if "index --rebuild" in named:
        status, output = await service.run("index", "--rebuild", "--collection", DAMAGED)
        outcome.ways["rebuild"] = await _mended(service, words, status, output)
    if "snapshot restore" in named and DAMAGED in home.expected.snapshots:
        service.kill()
        shutil.rmtree(service.home)
        await _damage(home, service, corruption, outcome)
        await service.start(STARTING_S)
        async with service.client() as client:  # damage may show only when somebody reads
            await state_of(client, DAMAGED, words[DAMAGED])
        status, output = await service.run("snapshot", "restore", home.expected.snapshots[DAMAGED])
        restored = {**words, DAMAGED: home.expected.words[DAMAGED]}
        outcome.ways["restore"] = await _mended(service, restored, status, output)
    if not outcome.ways:
        outcome.troubles.append(f"no way back: {outcome.message[:300]}")
    allowed = (MENDS, REFUSES) if MENDS in outcome.ways.values() else (MENDS,)
    outcome.troubles += [f"{way}: {what}" for way, what in outcome.ways.items() if what not in allowed]


async def _do_as_warned(
    service: Service, corruption: Corruption, outcome: Outcome, words: Mapping[str, Mapping[str, str]]
) -> None:
    """Upgrade, or repair all collections."""
    status, output = 0, ""
    if corruption.upgrade is not None:
        way = "upgrade"
        await service.terminate()
        corruption.upgrade(service.home)
        await service.start(STARTING_S)
    else:
        way = "repair"
        for collection in words:
            status, output = await service.run("collections", "repair", collection)
    outcome.ways[way] = await _mended(service, words, status, output)
    if outcome.ways[way] != MENDS:
        outcome.troubles.append(f"{way}: {outcome.ways[way]}")


async def _mended(service: Service, words: Mapping[str, Mapping[str, str]], status: int, output: str) -> str:
    """MENDS if everything is there after the command, and after another start."""
    if status and "would lose documents" in output:
        return REFUSES
    for moment in ("", " after another start"):
        if moment:
            await service.terminate()
            await service.start(STARTING_S)
        async with service.client() as client:
            for collection, expected in words.items():
                state, what = await settled(client, collection, expected)
                if state != "served":
                    said = f"exit status {status}, {output[-300:].strip()!r}"
                    return f"{collection} is {state}{moment}: {what[:300]} ({said})"
    return MENDS


async def attack(scratch: Path, only: str, *, verbose: bool) -> list[Outcome]:
    """All corruptions whose names contain this text."""
    home = Home(scratch)
    await home.build()
    outcomes = []
    for corruption in CORRUPTIONS:
        if only not in corruption.name:
            continue
        begun = time.perf_counter()
        outcome = await survive(home, corruption)
        outcomes.append(outcome)
        ways = ", ".join(f"{way} {what if what in (MENDS, REFUSES) else 'fails'}" for way, what in outcome.ways.items())
        verdict = "NOT SURVIVED" if outcome.troubles else ""
        cells = (outcome.name, outcome.state or "", outcome.ready, ways, verdict)
        print(f"| {' | '.join(cells)} | {time.perf_counter() - begun:.0f} s", flush=True)
        for line in (*outcome.troubles, *([outcome.message] if verbose and outcome.message else [])):
            print(f"    {line}", flush=True)
    return outcomes


def main() -> int:
    """Build, damage, start, mend."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", help="corruptions whose names contain this")
    parser.add_argument("--verbose", action="store_true", help="print the messages of isolated collections")
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="winnow-corruption-"))
    try:
        outcomes = asyncio.run(attack(scratch, arguments.only, verbose=arguments.verbose))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    tried = [outcome for outcome in outcomes if not outcome.ready.startswith("not applicable")]
    survived = sum(not outcome.troubles for outcome in tried)
    states = ", ".join(f"{sum(o.state == state for o in tried)} {state}" for state in ("served", "isolated", "wrong"))
    print(f"{survived} of {len(tried)} survived ({states})")
    return 0 if survived == len(tried) else 1


if __name__ == "__main__":
    sys.exit(main())
