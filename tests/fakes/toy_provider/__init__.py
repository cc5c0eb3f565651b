"""A provider of the tests' own: it declares itself as those of the service do, in one package."""

from app.backends.base import Adapter
from app.backends.provider import Provider
from app.backends.settings import BackendSettings


def _open(name: str, settings: BackendSettings) -> Adapter:
    from tests.fakes.toy_provider.adapter import ToyAdapter

    return ToyAdapter(settings)


TOY = Provider(
    kind="toy",
    may_offer=frozenset(("chat",)),
    load=lambda: None,
    open=_open,
    model="parrot-1",
    url_variable="TOY_URL",
    key_variables=("TOY_API_KEY",),
    tools="none",
    local=True,
)
