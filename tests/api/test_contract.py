"""The implementation against its own OpenAPI description, by schemathesis, over a real socket."""

import time
from collections.abc import Iterator
from typing import NamedTuple, get_args

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance

from app.access.key_file import KEY_FILE, KeyFile
from app.access.keys import KeyRequest
from app.domain import Scope
from tests.fakes.running import RunningServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLES = 25

# Valid JSON need not be a valid filter: its grammar is checked by `indexing.filters`, which answers 400.
# Without a key in the service none is needed; with one, tests/api/test_every_route.py tries every route without it.
EXCLUDED = [positive_data_acceptance, ignored_auth]

# A field of a form is text, whatever was meant by it: what is no string in JSON is one there.
EXCLUDED_OF_FORMS = [*EXCLUDED, negative_data_rejection]


class Described(NamedTuple):
    """The description of a service, and what its caller sends with each request."""

    schema: BaseSchema
    headers: dict[str, str]


@pytest.fixture(scope="module")
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Described]:
    home = tmp_path_factory.mktemp("home")
    headers = {}
    if request.param != "no key":
        scopes = tuple(scope for scope in get_args(Scope) if scope != "admin")
        headers["X-API-Key"] = KeyFile(home / KEY_FILE, time.time).create(KeyRequest(name="ci", scopes=scopes))[1]
    running = RunningServer(home)
    schema = schemathesis.openapi.from_url(f"{running.url}/schema/openapi.json")
    schema.config.generation.update(with_security_parameters=False)  # a second key, made up, would be refused
    yield Described(schema, headers)
    running.close()


# Not by schemathesis' own pytest plugin: as of 4.32 it does not work with pytest 9.1.
# With a key valid requests alone: whoever may not is refused whatever the body is (tests/api/test_every_route.py).
@pytest.mark.parametrize(
    ("api", "mode"),
    [
        ("no key", GenerationMode.POSITIVE),
        ("no key", GenerationMode.NEGATIVE),
        ("a key of all scopes but admin", GenerationMode.POSITIVE),
    ],
    indirect=["api"],
)
def test_the_implementation_keeps_its_description(
    api: Described, mode: GenerationMode, subtests: pytest.Subtests
) -> None:
    """Any request, valid or not, gets a status, a type and a body that the description allows, and never a 500."""
    assert api.schema["/version"]["GET"].Case().call(headers=api.headers).status_code == 200
    for found in api.schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.method.upper() in ("GET", "DELETE"):
            continue  # a request without a body has nothing that could be wrong

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            derandomize=True,
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case: Case) -> None:
            form = case.media_type == "multipart/form-data"
            case.call_and_validate(headers=api.headers, excluded_checks=EXCLUDED_OF_FORMS if form else EXCLUDED)

        with subtests.test(operation=operation.label):
            holds()
