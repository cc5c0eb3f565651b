"""`python -m tests.fakes.real_server HOME`: the service as it is, with its default model, on a free port."""

import sys
from pathlib import Path

from app.config.settings import IndexSection, ServiceSettings, Settings
from app.main import serve
from app.wiring import build_services


def main(home: Path) -> None:
    """Serve until told to stop."""
    settings = Settings(service=ServiceSettings(port=0, log_format="json"), index=IndexSection(home=home))
    serve(settings, build_services(settings))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
