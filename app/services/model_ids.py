"""What clients may type as a model, where they speak another product's protocol."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from app.backends.client import BackendClient
from app.backends.router import Backends
from app.backends.settings import AUTO
from app.errors import ConfigError, MissingCapability, UnknownBackend

RERANK = "winnow-rerank"
EMBED = "winnow-embed"
ANSWER = "winnow"

OURS = "winnow"

Serves = Literal["rerank", "embed", "answer", "chat"]


class Offered(NamedTuple):
    """A model in the list. RAGFlow guesses from the id what a model is for: "rerank" and "embed" must stand in it."""

    id: str
    serves: Serves
    owner: str
    context_tokens: int | None = None


class Ranker(NamedTuple):
    """Who ranks, None for the default; and what the client should hear of that."""

    backend: str | None
    warning: str = ""


class ModelNames:
    """The names, by what the settings say. Raises ConfigError for an alias of a backend that cannot rank."""

    def __init__(self, backends: Backends, aliases: Mapping[str, str], embedders: Iterable[str]) -> None:
        self._backends, self._aliases = backends, aliases
        self._embedders = frozenset(embedders)
        for alias, backend in aliases.items():
            try:
                backends.for_ranking(backend)
            except (UnknownBackend, MissingCapability) as exc:
                raise ConfigError(f"rerank_aliases in [compat]: {alias!r} cannot stand for {backend!r}: {exc}") from exc

    def ranker(self, model: str, lines: Iterable[BackendClient]) -> Ranker:
        """Whom `winnow-rerank`, `winnow-rerank@NAME`, an alias, a backend's name or its model mean.

        Clients send all kinds of names (some cannot leave it out), so another one means the default, and a warning.
        A NAME after our own prefix may be unknown or unable: that is for the ranking to say.
        """
        name = model.strip()
        ours, backend = at_backend(name)
        if ours == RERANK or not name:
            return Ranker(backend)
        if name in self._aliases:
            return Ranker(self._aliases[name])
        if line := line_called(name, lines):
            return Ranker(line.name)
        warning = f"there is no model {name[:100]!r} here: {RERANK} ranked; [compat] rerank_aliases names others"
        return Ranker(None, warning)

    def embeds(self, model: str) -> bool:
        """Whether it means the one embedding model that there is. Vectors of two models must not be mixed."""
        return model.strip() in (EMBED, *self._embedders)

    def offered(
        self, lines: Sequence[BackendClient], collections: Iterable[str], embedder: str, reads: int | None
    ) -> list[Offered]:
        """What GET /v1/models lists, each once: who can chat, then rankers and embedders.

        Open WebUI begins every chat with the first, so that is a collection which is there, if any is. An embedder that
        would be taken for a chat model is not listed, but may be called by its id.
        """
        rankers = [name for name in (AUTO, *(backend.name for backend in self._backends if "rank" in backend.roles))]
        chats = [
            *(Offered(f"{ANSWER}:{name}", "answer", OURS) for name in sorted(collections)),
            Offered(ANSWER, "answer", OURS),
            *(Offered(line.model, "chat", line.name, _context(line)) for line in lines if line.model),
        ]
        others = [
            Offered(RERANK, "rerank", OURS),
            *(Offered(f"{RERANK}@{name}", "rerank", name) for name in rankers),
            Offered(EMBED, "embed", OURS, reads),
            *([Offered(embedder, "embed", OURS, reads)] if _says_what_it_is(embedder) else []),
        ]
        first: dict[str, Offered] = {}
        for found in (*chats, *others):
            first.setdefault(found.id, found)
        return list(first.values())


def at_backend(text: str) -> tuple[str, str | None]:
    """`handbook@gemma`: a name of ours, none of which has an @ in it, and who ranks; None: the settings' default."""
    name, _, backend = text.strip().partition("@")
    return name, backend or None


def line_called(name: str, lines: Iterable[BackendClient]) -> BackendClient | None:
    """The backend of that name, or else the first whose model has it."""
    known = list(lines)
    return next((line for line in known if line.name == name), None) or next(
        (line for line in known if line.model == name), None
    )


def public_name(model: str) -> str:
    """An embedding model's id; of a directory, which is nobody's business, its last part."""
    return Path(model).name if Path(model).is_absolute() or Path(model).is_dir() else model


def _says_what_it_is(embedder: str) -> bool:
    return any(word in embedder.lower() for word in ("embed", "bge"))


def _context(line: BackendClient) -> int | None:
    return line.probed.context_tokens if line.probed else None
