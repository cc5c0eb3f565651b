"""The names that clients of other products' protocols may use for a model."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from app.backends.client import BackendClient
from app.backends.router import Backends
from app.backends.settings import AUTO
from app.domain import Caller

RERANK = "winnow-rerank"
EMBED = "winnow-embed"
ANSWER = "winnow"

OURS = "winnow"

Serves = Literal["rerank", "embed", "answer", "chat"]


class Offered(NamedTuple):
    """A model of GET /v1/models.

    RAGFlow guesses from the id what a model is for, so that ids contain "rerank" or "embed".
    """

    id: str
    serves: Serves
    owner: str
    context_tokens: int | None = None


class ModelNames:
    """Resolves names of models by the settings."""

    def __init__(self, backends: Backends, aliases: Mapping[str, str], embedders: Iterable[str]) -> None:
        self._backends, self._aliases = backends, aliases
        self._embedders = frozenset(embedders)

    def ranking_backend(self, model: str, clients: Iterable[BackendClient], caller: Caller) -> tuple[str | None, str]:
        """The backend that ranks, None for the default one, and a warning, "" if there is none.

        `model` may be `winnow-rerank`, `winnow-rerank@BACKEND`, an alias, the name of a backend or of its model. Any
        other name means the default and a warning, since some clients must send one. Whether BACKEND exists and can
        rank is checked by the ranking.
        """
        name = model.strip()
        prefix, backend = split_backend(name)
        if prefix == RERANK or not name:
            return backend, ""
        if name in self._aliases:
            return self._aliases[name], ""
        if client := find_client(name, clients, caller):
            return client.name, ""
        return None, f"model {name[:100]!r} not found: ranked by {RERANK}; add aliases under [compat] rerank_aliases"

    def embeds(self, model: str) -> bool:
        """Whether the name means the embedding model of the index. Vectors of two models must not be mixed."""
        return model.strip() in (EMBED, *self._embedders)

    def offered(
        self,
        clients: Sequence[BackendClient],
        collections: Iterable[str],
        embedder: str,
        reads: int | None,
        caller: Caller,
    ) -> list[Offered]:
        """The models of GET /v1/models, each once: those that can chat, then rankers and embedders.

        Of the backends only those that the caller's key is for.

        Open WebUI begins every chat with the first one, so that collections come first. An embedder whose id looks like
        that of a chat model is not listed, but can be used by its id.
        """
        rankers = [backend.name for backend in self._backends if "rank" in backend.roles]
        usable = [
            client
            for client in clients
            if client.model and caller.may_use(client.name) and client.offers(frozenset(("chat",)))
        ]
        chats = [
            *(Offered(f"{ANSWER}:{name}", "answer", OURS) for name in sorted(collections)),
            Offered(ANSWER, "answer", OURS),
            *(Offered(client.model, "chat", client.name, _context(client)) for client in usable),
        ]
        others = [
            Offered(RERANK, "rerank", OURS),
            *(Offered(f"{RERANK}@{name}", "rerank", name) for name in (AUTO, *filter(caller.may_use, rankers))),
            Offered(EMBED, "embed", OURS, reads),
            *(
                [Offered(embedder, "embed", OURS, reads)]
                if any(word in embedder.lower() for word in ("embed", "bge"))
                else []
            ),
        ]
        first: dict[str, Offered] = {}
        for model in (*chats, *others):
            first.setdefault(model.id, model)
        return list(first.values())


def split_backend(text: str) -> tuple[str, str | None]:
    """`handbook@gemma` as a name and the backend that ranks, None for the default one. No name of ours has an @."""
    name, _, backend = text.strip().partition("@")
    return name, backend or None


def find_client(name: str, clients: Iterable[BackendClient], caller: Caller) -> BackendClient | None:
    """The backend with this name, or else the first one whose model has it, if possible one of the caller's key."""
    clients = sorted(clients, key=lambda client: not caller.may_use(client.name))
    by_name = (client for client in clients if client.name == name)
    by_model = (client for client in clients if client.model == name)
    return next(by_name, None) or next(by_model, None)


def public_name(model: str) -> str:
    """An embedding model's id; of a directory only the last part, so that no path is shown."""
    return Path(model).name if Path(model).is_absolute() or Path(model).is_dir() else model


def _context(client: BackendClient) -> int | None:
    return client.probed.context_tokens if client.probed else None
