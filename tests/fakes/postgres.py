"""A real PostgreSQL server, with an empty database for each test. It is no fake: the programs are Debian's."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = "/usr/lib/postgresql"


class NoPostgres(Exception):
    """There is none here; the text says what is missing."""


def programs() -> Path:
    """The folder of the newest server. Raises NoPostgres."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    versions = sorted(Path(PROGRAMS).glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        raise NoPostgres("PostgreSQL's server programs are not installed; `make test-postgres` installs Debian's")
    return versions[-1].parent


class Postgres:
    """A running server. It may be stopped and started again, as in an outage; its port stays."""

    def __init__(self, directory: Path) -> None:
        self._programs, self._directory = programs(), directory
        # PostgreSQL refuses to run as root, and Debian's package brings a user for it.
        self._as = ["runuser", "-u", "postgres", "--"] if os.name == "posix" and os.geteuid() == 0 else []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._databases = 0
        if self._as:
            shutil.chown(directory, "postgres")
        data = ["-D", str(directory / "data"), "-U", "winnow", "-A", "trust", "-E", "UTF8"]
        # A locale in which text is not ordered as in Python, where there is one: what relies on an order must say so.
        icu = ["--locale-provider=icu", "--icu-locale=en"] if int(self._programs.parts[-2]) >= 15 else []
        self._run("initdb", *data, *icu, "--locale=C.UTF-8", "-N")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories={self._directory}"
        options += " -c fsync=off -c max_connections=200"
        files = ["-D", str(self._directory / "data"), "-l", str(self._directory / "log")]
        self._run("pg_ctl", *files, "-w", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """As a crash, or in another mode of pg_ctl's."""
        self._run("pg_ctl", "-D", str(self._directory / "data"), "-m", mode, "-w", "stop")

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"test{self._databases}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://winnow:not-asked@127.0.0.1:{self.port}/{name}?sslmode=disable"

    def sql(self, database: str, statement: str) -> str:
        """What psql prints: a line for each row, with columns between bars."""
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "winnow", "-d", database]
        return self._run("psql", *address, "-XAtc", statement)

    def _run(self, program: str, *arguments: str) -> str:
        with tempfile.TemporaryFile("w+") as output:  # not a pipe: the server would keep it open
            status = subprocess.call(
                [*self._as, str(self._programs / program), *arguments],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            output.seek(0)
            said = output.read().strip()
        if status:
            raise RuntimeError(f"{program} ended with {status}: {said[-2000:]}")
        return said


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server until the block ends. Raises NoPostgres."""
    programs()
    # Not pytest's folder, which others may not enter, and whose path may be too long for a socket.
    directory = Path(tempfile.mkdtemp(prefix="winnow-pg-"))
    try:
        server = Postgres(directory)
        try:
            yield server
        finally:
            server.stop()
    finally:
        for _ in range(20):
            shutil.rmtree(directory, ignore_errors=True)
            if not directory.exists():
                break
            time.sleep(0.05)
