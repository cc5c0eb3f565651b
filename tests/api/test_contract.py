"""The implementation against its own OpenAPI description, by schemathesis, over a real socket."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.fakes.running import RunningServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLES = 25

# Valid JSON need not be a valid filter: its grammar is checked by `indexing.filters`, which answers 400.
EXCLUDED = [positive_data_acceptance]

# A field of a form is text, whatever was meant by it: what is no string in JSON is one there.
EXCLUDED_OF_FORMS = [*EXCLUDED, negative_data_rejection]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseSchema]:
    running = RunningServer(tmp_path_factory.mktemp("home"))
    yield schemathesis.openapi.from_url(f"{running.url}/schema/openapi.json")
    running.close()


# Not by schemathesis' own pytest plugin: as of 4.32 it does not work with pytest 9.1.
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_the_implementation_keeps_its_description(
    api: BaseSchema, mode: GenerationMode, subtests: pytest.Subtests
) -> None:
    """Any request, valid or not, gets a status, a type and a body that the description allows, and never a 500."""
    for found in api.get_all_operations():
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
            case.call_and_validate(excluded_checks=EXCLUDED_OF_FORMS if form else EXCLUDED)

        with subtests.test(operation=operation.label):
            holds()
