"""The files of deploy/scale-out, beside those of the root, from which they must not stray; nothing is started."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.backends.registry import provider_variables
from app.config.settings import BACKENDS, SECTIONS, variable_of
from app.config.validation import load_settings
from tests.fakes.compose_files import faults_of
from tests.fakes.monitoring_files import scrape_config

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "scale-out"
TEXT = (FOLDER / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
OF_THE_ROOT: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
EXAMPLE = (FOLDER / ".env.example").read_text(encoding="utf-8")
CADDYFILE = (FOLDER / "Caddyfile").read_text(encoding="utf-8")
MAXIMUM_OF_CONNECTIONS = 8
"""Of a replica to PostgreSQL, as docs/deploy.md says."""

_REFERENCE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<rest>[^}]*)\}")


def named(kind: str) -> list[str]:
    """The services of that kind: winnow-1, winnow-2 ..."""
    return [name for name in SERVICES if re.fullmatch(rf"{kind}-\d", name)]


def filled(text: str) -> str:
    """With the defaults in place of the variables, and a word where one is required."""
    return _REFERENCE.sub(lambda found: found["rest"].lstrip(":-") if found["rest"][:2] != ":?" else "secret", text)


def settings_of(service: str) -> dict[str, str]:
    """What its environment sets."""
    return {name: filled(value) for name, value in SERVICES[service]["environment"].items() if value is not None}


def test_there_are_several_of_everything() -> None:
    """And one of each that is shared; no profile hides any."""
    assert [len(named(kind)) for kind in ("winnow", "qdrant", "vllm")] == [3, 3, 2]
    assert set(SERVICES) - {*named("winnow"), *named("qdrant"), *named("vllm")} == {"caddy", "postgres", "prometheus"}
    assert not [name for name, service in SERVICES.items() if "profiles" in service or "network_mode" in service]


def test_it_is_valid_by_the_compose_specification() -> None:
    """By its JSON schema, which check-jsonschema brings."""
    assert faults_of(COMPOSE) == []


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_as_in_the_root(name: str) -> None:
    """Its image, its bounds and its health check; PostgreSQL, which is only here, is hardened like the others."""
    service, original = SERVICES[name], OF_THE_ROOT.get(name.rpartition("-")[0] or name, OF_THE_ROOT["qdrant"])
    alike = ("restart", "cap_drop", "security_opt", "ulimits", "logging", "read_only", "cap_add", "pids_limit")
    assert {key: service.get(key) for key in alike} == {key: original.get(key) for key in alike}
    assert re.fullmatch(r"\d+[gm]", filled(service["mem_limit"]))
    assert re.search(r":v?\d[\w.-]*$", filled(service["image"]))
    if name != "postgres":
        assert service.get("healthcheck") == original.get("healthcheck")
        assert service.get("shm_size") == original.get("shm_size")
    if not name.startswith(("postgres", "winnow")):
        assert service["image"] == original["image"]
    if name.startswith("vllm"):
        assert service["command"] == original["command"]


def test_nothing_but_caddy_is_published() -> None:
    """Models, index, database and figures have no port on the host."""
    assert {name: one["ports"] for name, one in SERVICES.items() if "ports" in one} == {
        "caddy": OF_THE_ROOT["caddy"]["ports"]
    }
    reach = {name: set(one["networks"]) for name, one in SERVICES.items()}
    assert {name for name in SERVICES if "store" in reach[name]} == {
        *named("winnow"),
        *named("qdrant"),
        "postgres",
        "prometheus",
    }
    assert reach["caddy"] == {"front"}
    assert COMPOSE["networks"]["store"] == {"internal": True}


def test_each_has_a_home_of_its_own() -> None:
    """No two write to one volume, but for the weights; each volume is declared, and each mounted file there."""
    mounted = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    volumes = [volume.partition(":")[0] for volume in mounted if volume[0] not in ".$"]
    assert set(volumes) == set(COMPOSE["volumes"])
    assert {name for name in volumes if volumes.count(name) > 1} == {"huggingface"}
    files = [filled(volume).partition(":")[0] for volume in mounted if volume[0] in ".$"]
    assert [file for file in files if not (FOLDER / file).exists()] == []
    assert (FOLDER / COMPOSE["x-winnow"]["build"]["context"] / "Dockerfile").exists()
    gpus = [SERVICES[name]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for name in named("vllm")]
    assert gpus == [["0"], ["1"]]


def test_the_services_settings_exist_and_lead_to_what_is_here(tmp_path: Path) -> None:
    """Read as the service reads them: one backend of all vLLMs, every Qdrant node by one name, one database."""
    environ = settings_of("winnow-1")
    known = {variable_of(section, key) for section, kind in SECTIONS.items() for key in kind.__struct_fields__}
    assert set(environ) <= known | set(provider_variables())
    assert BACKENDS not in environ
    settings = load_settings(environ | {"WINNOW_SERVICE_PROMPT_SECRET": "0" * 32}, tmp_path)
    assert settings.backends["vllm"].urls == tuple(f"http://{name}:8000/v1" for name in named("vllm"))
    assert settings.store.url == "http://qdrant:6333"
    assert {*SERVICES["qdrant-1"]["networks"]["store"]["aliases"]} == {"qdrant"}
    assert settings.database.url == "postgresql://winnow:secret@postgres:5432/winnow"
    database = settings_of("postgres")
    assert (database["POSTGRES_USER"], database["POSTGRES_DB"]) == ("winnow", "winnow")
    assert (settings.store.shard_number or 0) >= len(named("qdrant"))
    assert {name: settings_of(name) for name in named("winnow")} == dict.fromkeys(named("winnow"), environ)
    assert "postgres" in filled(COMPOSE["x-winnow"]["build"]["args"]["EXTRAS"]).split()


def test_the_nodes_find_each_other() -> None:
    """The first begins the cluster under its own name, the others join it under theirs, when it is there."""
    first, *others = named("qdrant")
    assert SERVICES[first]["command"] == ["./entrypoint.sh", "--uri", f"http://{first}:6335"]
    for name in others:
        joins = ["./entrypoint.sh", "--bootstrap", f"http://{first}:6335", "--uri", f"http://{name}:6335"]
        assert SERVICES[name]["command"] == joins
        assert SERVICES[name]["depends_on"] == {first: {"condition": "service_healthy"}}
    assert settings_of(first)["QDRANT__CLUSTER__ENABLED"] == "true"


@pytest.mark.parametrize("name", named("winnow"))
def test_a_service_waits_for_index_and_database_and_never_for_a_model(name: str) -> None:
    """It searches while the weights are loading."""
    assert set(SERVICES[name]["depends_on"]) == {*named("qdrant"), "postgres"}
    assert {how["condition"] for how in SERVICES[name]["depends_on"].values()} == {"service_healthy"}


def test_the_database_has_connections_for_all() -> None:
    """Those of each service, and some for whoever looks after it."""
    (limit,) = re.findall(r"max_connections=(\d+)", filled(SERVICES["postgres"]["command"][2]))
    assert int(limit) >= MAXIMUM_OF_CONNECTIONS * len(named("winnow")) + 10
    page = " ".join((ROOT / "docs" / "deploy.md").read_text(encoding="utf-8").split())
    assert f"{MAXIMUM_OF_CONNECTIONS} connections of a replica at most" in page


def test_caddy_leads_to_every_service() -> None:
    """To those that are ready; events come as they are written, and what is for the inside stays there."""
    (default,) = re.findall(r"reverse_proxy \{\$WINNOW_REPLICAS:(.*)\} \{$", CADDYFILE, re.MULTILINE)
    assert default.split() == [f"{name}:8000" for name in named("winnow")]
    of_the_root = (ROOT / "deploy" / "Caddyfile").read_text(encoding="utf-8")
    for line in ("flush_interval -1", "@inside path /metrics /internal/*", "max_size 1GB", "admin off"):
        assert line in CADDYFILE
        assert line in of_the_root
    assert re.search(r"^\t\thealth_uri /health$", CADDYFILE, re.MULTILINE)


def test_prometheus_reads_all_that_have_figures() -> None:
    """With keys from files that the shell of its container writes, and the alerts of the root."""
    read = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    original = scrape_config()
    assert {key: read[key] for key in ("global", "rule_files")} == {
        key: original[key] for key in ("global", "rule_files")
    }
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in read["scrape_configs"]}
    ports = {"winnow": 8000, "qdrant": 6333, "vllm": 8000}
    assert targets == {kind: [f"{name}:{port}" for name in named(kind)] for kind, port in ports.items()}
    (line,) = SERVICES["prometheus"]["command"]
    written = dict(re.findall(r'"\$\$(\w+)" > (\S+);', line))
    assert set(written) == set(SERVICES["prometheus"]["environment"])
    keys = [job["authorization"]["credentials_file"] for job in read["scrape_configs"] if "authorization" in job]
    assert sorted(keys) == sorted(written.values())
    (job,) = original["scrape_configs"]
    assert read["scrape_configs"][0]["authorization"] == job["authorization"]
    assert "../monitoring/alerts.yml:/etc/prometheus/alerts.yml:ro" in SERVICES["prometheus"]["volumes"]


def test_the_example_lists_every_variable_with_its_default() -> None:
    """Those that have none are required, and the compose file says where to find how to write them."""
    required = {found["name"] for found in _REFERENCE.finditer(TEXT) if found["rest"].startswith(":?")}
    assert all(".env.example" in found["rest"] for found in _REFERENCE.finditer(TEXT) if found["name"] in required)
    defaults = {
        found["name"]: found["rest"].lstrip(":").removeprefix("-")
        for found in _REFERENCE.finditer(TEXT)
        if found["name"] not in required
    }
    passed_on = {
        name for one in SERVICES.values() for name, value in (one.get("environment") or {}).items() if not value
    }
    example = dict(re.findall(r"^#?(\w+)=(.*)$", EXAMPLE, re.MULTILINE))
    assert example == defaults | dict.fromkeys((*passed_on, *required), "")
    assert {name for name, value in re.findall(r"^(\w+)=(.*)$", EXAMPLE, re.MULTILINE)} == required


def test_the_command_of_the_example_writes_the_keys(tmp_path: Path) -> None:
    """Long random ones without characters that an address could not hold, into a file for its owner alone."""
    (command,) = re.findall(r"^#   (\(umask.*)$", EXAMPLE, re.MULTILINE)
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    written = dict(line.split("=") for line in (tmp_path / ".env").read_text(encoding="utf-8").splitlines())
    assert set(written) == {name for name, _ in re.findall(r"^(\w+)=(.*)$", EXAMPLE, re.MULTILINE)}
    assert all(re.fullmatch(r"[0-9a-f]{64}", key) for key in written.values())
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
