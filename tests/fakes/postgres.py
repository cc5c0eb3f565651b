"""A real PostgreSQL server, with an empty database for each test. It is no fake: the programs are Debian's."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

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

    def secured(self, user: str, password: str, authority: Path) -> str:
        """The URL of a new database, without an sslmode, whose owner has to send a password (scram), encrypted.

        The certificate of the authority that signed the server's, for 127.0.0.1, is written to a file.
        """
        data, name = self._directory / "data", self.database().rpartition("/")[2].partition("?")[0]
        self.sql("postgres", f"CREATE ROLE {user} LOGIN PASSWORD '{password}'; ")
        self.sql("postgres", f"ALTER DATABASE {name} OWNER TO {user}")
        sign("127.0.0.1", authority, data / "server.crt", data / "server.key")
        for file in (data / "server.crt", data / "server.key"):
            file.chmod(0o600)
            if self._as:
                shutil.chown(file, "postgres")
        rules = data / "pg_hba.conf"
        mine = f"hostssl all {user} 127.0.0.1/32 scram-sha-256\nhostnossl all {user} 127.0.0.1/32 reject\n"
        rules.write_text(mine + rules.read_text())
        self.sql("postgres", "ALTER SYSTEM SET ssl = on")
        self._run("pg_ctl", "-D", str(data), "reload")
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{name}"

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


def sign(address: str, authority: Path, certificate: Path, key: Path) -> None:
    """Write a new authority's certificate, and one of a server at an IP address that it has signed, with its key."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("Authority", address)]
    for place, file in enumerate((authority, certificate)):
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder(names[0], names[place], keys[place].public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=place == 0, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        )
        file.write_bytes(made.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    formats = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(keys[1].private_bytes(serialization.Encoding.PEM, *formats))


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
