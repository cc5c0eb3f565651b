"""vLLM, Ollama and every other server that speaks OpenAI's protocol, through OpenAI's SDK.

adapter   the backend: its calls
decisions typed questions, in OpenAI's words and in vLLM's
infilling what belongs between two texts, of models that were trained for it
messages  request bodies and replies
probing   finds out what the server is and can do
reranking a server of a reranker, as a backend of its own kind
scoring   log-probabilities of labels
wire      the one way to the server
errors    the one seam for what can go wrong there
"""

from functools import partial

from app.backends.base import Adapter
from app.backends.provider import Provider
from app.backends.settings import BackendSettings


def _load() -> None:
    import app.backends.openai_compatible.adapter  # noqa: F401


def _open(name: str, settings: BackendSettings) -> Adapter:
    from app.backends.openai_compatible.adapter import OpenAICompatible

    return OpenAICompatible(name, settings)


def _load_reranker() -> None:
    import app.backends.openai_compatible.reranking  # noqa: F401


def _open_reranker(name: str, settings: BackendSettings) -> Adapter:
    from app.backends.openai_compatible.reranking import Reranker

    return Reranker(name, settings)


_Server = partial(
    Provider,
    may_offer=frozenset(("chat", "structured", "images", "logprobs", "thinking", "decide", "infill")),
    load=_load,
    open=_open,
)

VLLM = _Server(
    kind="vllm",
    url_variable="VLLM_URL",
    key_variables=("VLLM_API_KEY",),
    tools_hint="start vLLM with --enable-auto-tool-choice and --tool-call-parser",
    local=True,
)

OLLAMA = _Server(
    kind="ollama",
    url="http://127.0.0.1:11434",
    url_variable="OLLAMA_URL",
    key_variables=("OLLAMA_API_KEY",),
    tools="optional",
    local=True,
)

# No variables: a key of one service must not travel to another one's URL.
# Probed first: OpenAI's newer models refuse `max_tokens`, and those that think any temperature.
OPENAI = _Server(kind="openai", price_list_url="https://api.openai.com/v1", probe_first=True)

# No variables either. Its price is looked up by its URL; a server of one's own has none until the settings say so.
RERANK = Provider(
    kind="rerank",
    may_offer=frozenset(("rerank",)),
    load=_load_reranker,
    open=_open_reranker,
    own_settings=("dialect",),
    tools="none",
    probe_first=True,
)
