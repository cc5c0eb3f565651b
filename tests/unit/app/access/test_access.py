"""Who is let in."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from app.access.access import REFRESH_S, Access
from app.access.key_file import KeyFile
from app.access.keys import KeyRequest, new_token
from app.config.settings import AccessSettings
from app.domain import ANONYMOUS, SCOPES, Caller
from app.errors import ConfigError, NotAuthenticated
from indexing.errors import StoreUnavailable

pytestmark = pytest.mark.anyio

SEARCHING = KeyRequest(name="ci", scopes=("search",))
ADMIN_KEY = "an-admins-key-of-forty-characters-or-so"


class Times:
    """A clock that is set by hand: the time of the day and the time that passes."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def access(home: Path, times: Times) -> Access:
    return Access(home, AccessSettings(), times, times)


def elsewhere(access: Access) -> KeyFile:
    """As another process has the file."""
    return KeyFile(access.file.path, lambda: 1_800_000_000.0)


def identify(access: Access, *tokens: str) -> Caller:
    """Over the network."""
    return access.identify(tokens, operator=False, local=False)


async def later(access: Access, times: Times) -> None:
    """The next request, when what is known is old."""
    times.seconds += REFRESH_S
    await access.refresh()


async def test_without_keys_nobody_needs_one(access: Access) -> None:
    """And one that is sent all the same does not matter."""
    await access.refresh()
    assert not access.keyed
    assert identify(access) == identify(access, "sk-whatever") == ANONYMOUS


async def test_with_a_key_everybody_needs_one(access: Access, times: Times) -> None:
    """The caller is who has the key, with its scopes; a wrong one is never ignored."""
    await access.refresh()
    _, token = elsewhere(access).create(SEARCHING)
    await later(access, times)
    caller = identify(access, token)
    assert (caller.key, caller.scopes) == ("ci", {"search"})
    with pytest.raises(NotAuthenticated, match="a key is needed"):
        identify(access)
    key_id = token.split("_")[1]
    for wrong in ("x", "wnw_", token[:-1], token + "A", token.upper(), new_token(key_id), new_token("0" * 12), "\xff"):
        with pytest.raises(NotAuthenticated, match="this key is not known"):
            identify(access, wrong)


async def test_two_keys_that_disagree_are_none(access: Access) -> None:
    """The same one in two headers is one."""
    _, first = access.file.create(SEARCHING)
    _, second = access.file.create(KeyRequest(name="other", scopes=("admin",)))
    await access.refresh()
    assert identify(access, first, first).key == "ci"
    with pytest.raises(NotAuthenticated, match="different keys"):
        identify(access, first, second)


async def test_what_another_process_changes_is_noticed(access: Access, times: Times) -> None:
    """Revoking, within moments; and all keys revoked lets nobody in, rather than everybody."""
    _, token = access.file.create(SEARCHING)
    await access.refresh()
    caller = identify(access, token)
    await access.confirm(caller)
    elsewhere(access).revoke("ci")
    await later(access, times)
    with pytest.raises(NotAuthenticated, match="the key 'ci' is revoked"):
        identify(access, token)
    with pytest.raises(NotAuthenticated, match="a key is needed"):
        identify(access)
    with pytest.raises(NotAuthenticated, match="revoked"):
        await access.confirm(caller)
    await access.confirm(msgspec.structs.replace(ANONYMOUS, key="operator"))


async def test_what_this_process_changes_counts_at_once(access: Access) -> None:
    """Without waiting for the next look."""
    _, token = access.file.create(SEARCHING)
    await access.refresh()
    access.file.revoke("ci")
    access.load()
    with pytest.raises(NotAuthenticated, match="revoked"):
        identify(access, token)


async def test_a_key_expires(access: Access, times: Times) -> None:
    """To the second, without any look at the file."""
    from datetime import UTC, datetime, timedelta

    until = datetime.fromtimestamp(times(), UTC) + timedelta(seconds=10)
    _, token = access.file.create(KeyRequest(name="short", scopes=("search",), expires_at=until))
    await access.refresh()
    identify(access, token)
    times.seconds += 10
    with pytest.raises(NotAuthenticated, match="'short' is expired"):
        identify(access, token)


@pytest.mark.parametrize("loss", [Path.unlink, lambda path: path.write_bytes(b"no database" * 1000)])
async def test_a_file_that_is_lost_lets_nobody_in(access: Access, times: Times, loss: Callable[[Path], object]) -> None:
    """Deleted or damaged underneath the running service; when it is back, so are its keys."""
    _, token = access.file.create(SEARCHING)
    await access.refresh()
    kept = access.file.path.read_bytes()
    loss(access.file.path)
    await later(access, times)
    assert access.keyed
    for tokens in ([], [token]):
        with pytest.raises((NotAuthenticated, StoreUnavailable)):
            identify(access, *tokens)
    access.file.path.write_bytes(kept)
    await later(access, times)
    assert identify(access, token).key == "ci"


def test_a_damaged_file_keeps_the_service_from_starting(access: Access) -> None:
    """With one clear line."""
    access.file.path.parent.mkdir()
    access.file.path.write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError, match="are damaged: restore it from a backup"):
        access.open()


async def test_the_operator_needs_no_key(access: Access) -> None:
    """But is named where others are."""
    await access.refresh()
    assert access.identify((), operator=True, local=True) == msgspec.structs.replace(
        ANONYMOUS, scopes=SCOPES | {"operator"}
    )
    access.file.create(SEARCHING)
    access.load()
    assert access.identify((), operator=True, local=True).key == "operator"


async def test_programs_of_this_machine_need_a_key_unless_told_so(home: Path, times: Times) -> None:
    """And then, too, a key that is sent counts."""
    access = Access(home, AccessSettings(loopback=True), times, times)
    _, token = access.file.create(SEARCHING)
    await access.refresh()
    assert access.identify((), operator=False, local=True) == ANONYMOUS
    assert access.identify((token,), operator=False, local=True).key == "ci"
    with pytest.raises(NotAuthenticated):
        access.identify(("wrong",), operator=False, local=True)
    with pytest.raises(NotAuthenticated):
        identify(access)


async def test_the_first_key_may_come_from_the_environment(home: Path, times: Times, tmp_path: Path) -> None:
    """As it is, or from a file as Docker's secrets are."""
    (tmp_path / "secret").write_text(f"{ADMIN_KEY}\n")
    for settings in (AccessSettings(admin_key=ADMIN_KEY), AccessSettings(admin_key_file=tmp_path / "secret")):
        access = Access(home, settings, times, times)
        await access.refresh()
        assert identify(access, ADMIN_KEY) == msgspec.structs.replace(ANONYMOUS, key="environment")
        with pytest.raises(NotAuthenticated):
            identify(access)
        with pytest.raises(NotAuthenticated):
            identify(access, ADMIN_KEY + "x")


async def test_a_key_may_be_required_before_there_is_one(home: Path, times: Times) -> None:
    """Nobody is served until the operator has made one."""
    access = Access(home, AccessSettings(required=True), times, times)
    await access.refresh()
    with pytest.raises(NotAuthenticated):
        identify(access)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (AccessSettings(admin_key="short"), "WINNOW_ADMIN_KEY must have 32 or more"),
        (AccessSettings(admin_key="x" * 40 + " y"), "no spaces"),
        (AccessSettings(admin_key="ä" * 40), "must have 32"),
        (AccessSettings(admin_key_file=Path("/nowhere")), "/nowhere, cannot be read: No such file"),
        (AccessSettings(admin_key=ADMIN_KEY, admin_key_file=Path("/nowhere")), "both set"),
    ],
)
def test_a_weak_admin_key_is_refused(home: Path, settings: AccessSettings, message: str) -> None:
    """At the start, and the message does not repeat it."""
    with pytest.raises(ConfigError, match=message) as failure:
        Access(home, settings).open()
    assert "short" not in str(failure.value).replace("WINNOW", "")
