"""What a key looks like, and what may be asked of a new one."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from app.access.keys import TOKEN, Key, KeyRequest, digest_of, info_of, new_key, new_token, with_secret
from app.domain import SCOPES
from app.errors import InvalidRequest
from indexing.documents import EVERYTHING, Audience

NOW = 1_800_000_000.0


def request(**fields: object) -> KeyRequest:
    """A key for searching."""
    return msgspec.convert({"name": "ci", "scopes": ["search"], **fields}, KeyRequest)


def key(**fields: object) -> Key:
    """A key of the file."""
    return msgspec.structs.replace(new_key(request(), (), NOW)[0], **fields)


def test_a_token_is_its_prefix_its_id_and_256_random_bits() -> None:
    """Each is another one."""
    tokens = {new_token("0123456789ab") for _ in range(100)}
    assert len(tokens) == 100
    assert all(TOKEN.fullmatch(token) and token.startswith("wnw_0123456789ab_") for token in tokens)


def test_an_id_is_never_given_twice() -> None:
    """Not even where nearly all are taken."""

    class AllButOne:
        def __init__(self) -> None:
            self.asked = 0

        def __contains__(self, _: object) -> bool:
            self.asked += 1
            return self.asked < 5

    taken = AllButOne()
    new_key(request(), taken, NOW)  # type: ignore[arg-type]
    assert taken.asked == 5


def test_the_secret_is_nowhere_but_in_the_token() -> None:
    """Neither in the file nor in what is shown later."""
    made, token = new_key(request(), (), NOW)
    secret = token.rpartition("_")[2]
    assert secret.encode() not in msgspec.json.encode(made)
    assert secret.encode() not in msgspec.json.encode(info_of(made, NOW))
    assert with_secret(made, token, NOW).key == token


def test_only_its_own_secret_fits() -> None:
    """A token with the same id and another secret does not; the one before fits until its time is over."""
    made, token = new_key(request(), (), NOW)
    other = new_token(made.id)
    assert made.accepts(digest_of(token), NOW)
    assert not made.accepts(digest_of(other), NOW)
    rotated = msgspec.structs.replace(made, digest=digest_of(other), previous=made.digest, previous_until=NOW + 60)
    assert rotated.accepts(digest_of(other), NOW + 100)
    assert rotated.accepts(digest_of(token), NOW + 59)
    assert not rotated.accepts(digest_of(token), NOW + 60)


def test_a_key_is_active_until_it_expires_or_is_revoked() -> None:
    """Revoked counts more."""
    until = datetime.fromtimestamp(NOW, UTC) + timedelta(hours=1)
    assert key().state(NOW) == "active"
    assert key(expires_at=until).state(NOW + 3599) == "active"
    assert key(expires_at=until).state(NOW + 3600) == "expired"
    assert key(expires_at=until, revoked_at=until).state(NOW + 3600) == "revoked"


def test_admin_means_everything() -> None:
    """Other scopes mean themselves; a backend that costs nothing is always allowed."""
    assert key(scopes=("admin",)).caller().scopes == SCOPES
    assert key().caller().scopes == {"search"}
    assert key(scopes=("admin",)).caller().audience == EVERYTHING
    bounds = {"tenant": "a", "groups": ("b",), "collections": ("c",)}
    assert key(**bounds).caller().audience == Audience(**bounds)  # type: ignore[arg-type]
    assert key(scopes=("search", "metrics")).caller().audience == Audience()
    assert key().caller().backends is None
    assert key(backends=("flash",)).caller().backends == ("flash", "none", "extractive")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"name": "anonymous"}, "/name"),
        ({"name": "operator"}, "/name"),
        ({"scopes": ["admin"], "tenant": "a"}, "/scopes"),
        ({"scopes": ["admin"], "groups": ["a"]}, "/scopes"),
        ({"scopes": ["metrics"], "tenant": "a"}, "/scopes"),
        ({"scopes": ["search", "admin"], "collections": ["a"]}, "/scopes"),
        ({"backends": ["flash", "nope"]}, "/backends"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, object], pointer: str) -> None:
    """With the field."""
    with pytest.raises(InvalidRequest) as failure:
        request(**fields).check(["flash"], datetime.fromtimestamp(NOW, UTC))
    assert [problem.pointer for problem in failure.value.problems] == [pointer]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "x" * 65},
        {"scopes": []},
        {"scopes": ["root"]},
        {"collections": []},
        {"requests_per_minute": 0},
        {"daily_usd": -1},
        {"expires_at": "2030-01-01T00:00:00"},
        {"nope": 1},
    ],
)
def test_shapes_are_checked(fields: dict[str, object]) -> None:
    """Nothing unknown, nothing out of range, and no time without its zone."""
    with pytest.raises(msgspec.ValidationError):
        request(**fields)
