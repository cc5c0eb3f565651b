"""The URL of a database: what it says, and what is refused."""

import pytest

from indexing.database_url import address_of


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mysql://u@h/d", "does not begin with postgresql://"),
        ("postgresql://h/d", "lacks a user, a host or a database"),
        ("postgresql://u:secret@h", "lacks a user, a host or a database"),
        ("postgresql://u:secret@h:port/d", "not a URL"),
        ("postgresql://u:secret@h/d?sslmode=maybe", "sslmode 'maybe'"),
        ("postgresql://u:secret@h/d?pool=7", "unknown parameter 'pool'"),
    ],
)
def test_a_url_that_is_none_is_refused_in_a_sentence(url: str, why: str) -> None:
    """Without the password in it."""
    with pytest.raises(ValueError, match=why) as refused:
        address_of(url)
    assert "secret" not in str(refused.value)


def test_a_url_has_everything() -> None:
    """Escaped characters, a socket's directory, and what is shown has no password."""
    address = address_of("postgres://us%40er:p%2Fw@db.example:6432/my%20data?sslmode=verify-full&sslrootcert=/ca.pem")
    assert (address.user, address.password, address.host, address.port) == ("us@er", "p/w", "db.example", 6432)
    assert (address.database, address.ssl_mode, address.ssl_root) == ("my data", "verify-full", "/ca.pem")
    assert address.shown == "db.example:6432/my data"
    assert address_of("postgresql://u@/d?host=/run/postgresql").socket == "/run/postgresql/.s.PGSQL.5432"
