"""`python -m tests.fakes.qdrant_server DIRECTORY [PORT GRPC_PORT [API_KEY]]`: a server until it is killed.

Says its two ports on standard output once it listens.
"""

import sys
import threading
from pathlib import Path

from tests.fakes.qdrant_server.server import QdrantServer


def main(directory: str, port: str = "0", grpc_port: str = "0", api_key: str | None = None) -> None:
    server = QdrantServer(Path(directory), port=int(port), grpc_port=int(grpc_port), api_key=api_key)
    server.start()
    sys.stdout.write(f"{server.port} {server.grpc_port}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
