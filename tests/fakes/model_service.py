"""`python -m tests.fakes.model_service HOME BACKENDS`: the real server over an empty index, on a free port.

BACKENDS is a JSON object of `[backends.NAME]` sections.
"""

import sys
from pathlib import Path

import msgspec

from app.backends.settings import BackendSettings, RoutingSettings
from app.main import serve
from tests.fakes.models import services_for


def main(home: Path, told: str) -> None:
    """Serve until told to stop."""
    backends = msgspec.json.decode(told, type=dict[str, BackendSettings])
    services = services_for(home, backends, RoutingSettings(rest_s=0.05, longest_rest_s=0.2))
    serve(services.settings, services)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
