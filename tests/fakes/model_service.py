"""`python -m tests.fakes.model_service HOME BACKENDS [SERVICE]`: the real server over an empty index, on a free port.

BACKENDS is a JSON object of `[backends.NAME]` sections, SERVICE the section `[service]`.
"""

import sys
from pathlib import Path

import msgspec

from app.backends.settings import BackendSettings, RoutingSettings
from app.config.settings import ServiceSettings
from app.main import serve
from tests.fakes.models import services_for


def main(home: Path, told: str, limits: str = "{}") -> None:
    """Serve until told to stop."""
    backends = msgspec.json.decode(told, type=dict[str, BackendSettings])
    services = services_for(home, backends, RoutingSettings(rest_s=0.05, longest_rest_s=0.2))
    service = msgspec.json.decode(limits, type=ServiceSettings)
    service = msgspec.structs.replace(service, port=0, ping_s=services.settings.service.ping_s)
    serve(msgspec.structs.replace(services.settings, service=service), services)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
