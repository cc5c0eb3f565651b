"""Which backends there are, and which one a request means."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from app.config.backends import AUTO, BackendSettings
from app.domain import BackendUse
from app.errors import ConfigError, MissingCapability, UnknownBackend

Role = Literal["rank", "answer", "chat"]


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """Someone who ranks, answers or talks. `model` is None where no language model is behind it, or none is named."""

    name: str
    kind: Literal["none", "extractive", "gemini", "vllm", "ollama", "openai"]
    model: str | None = None
    roles: tuple[Role, ...] = ()


NONE = Backend(name="none", kind="none")
EXTRACTIVE = Backend(name="extractive", kind="extractive", roles=("answer",))


def declared(backends: Mapping[str, BackendSettings]) -> list[Backend]:
    """The configured ones, in their order."""
    return [
        Backend(name=name, kind=told.kind, model=told.model, roles=("rank", "answer", "chat"))
        for name, told in backends.items()
    ]


class Backends:
    """The backends by name; `none` and `extractive` are always there.

    `default` serves the requests that name none; `auto` is the order of [routing]. Raises ConfigError when the first
    cannot serve a search, or the second names one that is not configured: at the start, without any SDK.
    """

    def __init__(self, configured: Sequence[Backend] = (), default: str = AUTO, auto: Sequence[str] = ()) -> None:
        self._by_name = {backend.name: backend for backend in (NONE, EXTRACTIVE, *configured)}
        self.default = default
        names = [backend.name for backend in configured]
        if unknown := [name for name in auto if name not in names]:
            known = ", ".join(names) or "none"
            raise ConfigError(f"auto in [routing] names {', '.join(unknown)}; the backends declared are {known}")
        try:
            self.for_ranking(default)
        except (UnknownBackend, MissingCapability) as exc:
            raise ConfigError(f"backend = {default!r} in [service] cannot serve searches: {exc}") from exc

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._by_name.values())

    def named(self, name: str) -> Backend:
        """Raises UnknownBackend, listing the names."""
        if name not in self._by_name:
            raise UnknownBackend.among(name, (AUTO, *self._by_name))
        return self._by_name[name]

    def for_ranking(self, requested: str | None) -> BackendUse:
        """Who ranks. "none" keeps the retrieval order. Raises UnknownBackend, MissingCapability."""
        wanted = requested if requested is not None else self.default
        chosen = self._first_ranker() if wanted == AUTO else self.named(wanted)
        if chosen is not NONE and "rank" not in chosen.roles:
            raise MissingCapability(
                f"the backend {wanted!r} cannot rank passages; it can {' and '.join(chosen.roles)}. "
                f"Rankers are {', '.join((AUTO, *self._rankers()))}"
            )
        return BackendUse(requested=wanted, used=chosen.name, model=chosen.model)

    def for_answering(self, requested: str | None, ranks: str | None = None) -> BackendUse:
        """Who answers: whoever is `requested`, else who `ranks`, else the default; "none" of these two means quoting.

        Raises UnknownBackend, MissingCapability.
        """
        wanted = requested or ranks or self.default
        if wanted == NONE.name and requested is None:
            wanted = EXTRACTIVE.name
        chosen = self._first_answerer() if wanted == AUTO else self.named(wanted)
        if "answer" not in chosen.roles:
            raise MissingCapability(
                f"the backend {wanted!r} cannot answer; those that can are {', '.join((AUTO, *self._able('answer')))}"
            )
        return BackendUse(requested=wanted, used=chosen.name, model=chosen.model)

    def _able(self, role: Role) -> list[str]:
        return [backend.name for backend in self if role in backend.roles]

    def _rankers(self) -> list[str]:
        return [NONE.name, *self._able("rank")]

    def _first_ranker(self) -> Backend:
        return next((b for b in self if "rank" in b.roles), NONE)

    def _first_answerer(self) -> Backend:
        """A model before the one that needs none."""
        return next((b for b in self if "answer" in b.roles and b is not EXTRACTIVE), EXTRACTIVE)
