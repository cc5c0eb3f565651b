"""What the settings say of one another."""

from pathlib import Path

import pytest

from app.config.settings import read_settings
from app.config.validation import contradictions, load_settings
from app.errors import ConfigError

GEMINI = {"GEMINI_API_KEY": "k"}
FLASH = '[backends.flash]\nkind = "gemini"\n'
GPU = '[backends.gpu]\nkind = "vllm"\nurl = "http://127.0.0.1:8001/v1"\n'
PRICE = "price = {input = 1.0, output = 2.0, as_of = %r}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[routing]\nauto = ["zz"]', "auto in [routing] names zz; the backends declared are gemini"),
        ('[routing]\nauto = ["gemini", "gemini"]', "auto in [routing] names gemini 2 times; name each backend once"),
        ('[service]\nbackend = "zz"', "backend = 'zz' in [service] cannot serve searches"),
        ('[service]\nbackend = "extractive"', "backend = 'extractive' in [service] cannot serve searches"),
        ('[compat.rerank_aliases]\nbig = "zz"', "rerank_aliases in [compat]: 'big' cannot stand for 'zz'"),
        (FLASH + FLASH.replace("flash", "Flash"), "[backends.flash] and [backends.Flash] have the same variables"),
        (GPU + 'project = "p"', "project in [backends.gpu] has no effect on the kind vllm; remove it"),
        (GPU + 'service_tier = "flex"', "service_tier in [backends.gpu] has no effect on the kind vllm"),
        (GPU + PRICE % "last year", "as_of 'last year' in [backends.gpu.price] is not a date"),
        (GPU + "hedge_after_s = 30", "hedge_after_s = 30 in [backends.gpu] is never reached"),
        (GPU + "hedge_after_s = 9\ntimeout_s = 9", "hedge_after_s = 9 in [backends.gpu] is never reached"),
        ("[routing]\nrest_s = 90", "rest_s = 90 in [routing] is more than longest_rest_s = 60"),
        ('[service]\nhosts = ["https://rag.example"]', "hosts in [service]: 'https://rag.example' is not a name"),
        ('[fetch]\nhosts = ["wiki.local/pages"]', "hosts in [fetch]: 'wiki.local/pages' is not a name"),
        ('[access]\nadmin_key = "k"\nadmin_key_file = "f"', "admin_key and admin_key_file in [access] are both set"),
        ('[store]\nurl = "http://qdrant:port"', "url in [store] (QDRANT_URL): 'http://qdrant:port' is not like"),
        ('[store]\nurl = "qdrant"', "url in [store] (QDRANT_URL): 'qdrant' is not like http://127.0.0.1:6333"),
        ("[store]\nwrite_consistency_factor = 2", "write_consistency_factor = 2 in [store] is more than the replicas"),
        (
            '[database]\nurl = "mysql://u:secret@db/w"',
            "url in [database] (WINNOW_DATABASE_URL) is not like postgresql://",
        ),
        ('[ranking]\ncache = "database"', 'cache = "database" in [ranking] needs a database: set WINNOW_DATABASE_URL'),
        ('[embedding]\nmodel = "multilingual-e5-smal"', "did you mean multilingual-e5-small?"),
    ],
)
def test_a_contradiction_names_the_keys_and_the_way_out(tmp_path: Path, text: str, told: str) -> None:
    """Each is refused when the settings are loaded, though each key by itself is valid."""
    (tmp_path / "winnow.toml").write_text(text)
    assert read_settings(GEMINI, tmp_path)
    with pytest.raises(ConfigError) as refused:
        load_settings(GEMINI, tmp_path)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        '[routing]\nauto = ["gemini"]\n[service]\nbackend = "gemini"\nhosts = ["rag.example:443", "[::1]"]',
        '[service]\nbackend = "none"\n[compat.rerank_aliases]\n"rerank-v3.5" = "none"\nbig = "auto"',
        FLASH + 'project = "p"\nlocation = "eu"\nservice_tier = "flex"\nhedge_after_s = 2\n' + PRICE % "2026-11-22",
        GPU + FLASH + '[fetch]\nhosts = ["wiki.local"]',
        '[store]\nurl = "https://qdrant.example:6333"\nreplication_factor = 2\nwrite_consistency_factor = 2',
        '[embedding]\nmodel = "somebody/multilingual-e5-smal"',
        '[embedding]\nmodel = "bert-base-uncased"',
    ],
)
def test_what_goes_together_is_accepted(tmp_path: Path, text: str) -> None:
    """No rule refuses settings that work."""
    (tmp_path / "winnow.toml").write_text(text)
    assert list(contradictions(load_settings(GEMINI, tmp_path))) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WINNOW_EMBEDDING_BATCH_SIZE", "0"),
        ("WINNOW_EMBEDDING_MAX_TOKENS", "-1"),
        ("WINNOW_EMBEDDING_SIZES", "256,0"),
        ("WINNOW_STORE_TIMEOUT_S", "0"),
        ("WINNOW_STORE_SHARD_NUMBER", "0"),
    ],
)
def test_no_count_of_the_index_is_below_one(tmp_path: Path, variable: str, value: str) -> None:
    """What would fail in the middle of a run is refused at its start."""
    with pytest.raises(ConfigError, match=variable):
        load_settings({variable: value}, tmp_path)
