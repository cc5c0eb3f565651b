"""Fetching URLs of clients: what is refused without a connection, and what bounds the rest."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.config.settings import FetchSettings
from app.errors import InvalidRequest
from app.services.fetch import AT_ONCE, MAX_REDIRECTS, Fetcher, SystemResolver
from tests.fakes.web import Page, Web, page, redirect

pytestmark = pytest.mark.anyio

PUBLIC = "93.184.215.14"
TYPES = ("image/png",)
BODY = b"\x89PNG and so on"


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with Web() as web:
        web.names["pictures.example"] = [[PUBLIC]]
        web.pages["/a.png"] = page(BODY)
        yield web


async def fetched(web: Web, url: str, settings: FetchSettings | None = None) -> bytes:
    return await Fetcher(settings or FetchSettings(), web.resolve, web).fetch(url, TYPES, "/image_url")


async def refusal(web: Web, url: str, settings: FetchSettings | None = None) -> str:
    with pytest.raises(InvalidRequest) as caught:
        await fetched(web, url, settings)
    assert [problem.pointer for problem in caught.value.problems] == ["/image_url"]
    return caught.value.problems[0].detail


PRIVATE = [
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.254",
    "127.0.0.1",
    "127.255.0.9",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2606:4700::5efe:7f00:1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]

ODD_URLS = [
    "ftp://pictures.example/a.png",
    "file:///etc/passwd",
    "gopher://pictures.example/_a",
    "javascript:alert(1)",
    "data:image/png;base64,AAAA",
    "//pictures.example/a.png",
    "pictures.example/a.png",
    "http:///a.png",
    "http://",
    "http://user@pictures.example/a.png",
    "http://user:secret@pictures.example/a.png",
    "http://pictures.example@127.0.0.1/a.png",
    "http://@pictures.example/a.png",
    "http://127.0.0.1\\@pictures.example/a.png",
    "http://pictures.example\\.evil.example/a.png",
    "http://pictures.example:22/a.png",
    "http://pictures.example:6379/a.png",
    "http://pictures.example:8000/a.png",
    "http://pictures.example:0/a.png",
    "http://pictures.example:99999/a.png",
    "http://pictures.example:8o/a.png",
    "http://2130706433/a.png",
    "http://017700000001/a.png",
    "http://0x7f000001/a.png",
    "http://0x7f.0.0.1/a.png",
    "http://0177.0.0.1/a.png",
    "http://127.1/a.png",
    "http://127.0.1/a.png",
    "http://0/a.png",
    "http://127.0.0.1./a.png",
    "http://127.0.0.0x1/a.png",
    "http://08.8.8.8/a.png",
    "http://256.256.256.256/a.png",
    "http://１２７.０.０.１/a.png",
    "http://127。0。0。1/a.png",
    "http://①②⑦.⓪.⓪.①/a.png",
    "http://[::1%25eth0]/a.png",
    "http://[fe80::1%25lo]/a.png",
    "http://[::1/a.png",
    "http://[v1.x]/a.png",
    "http://[127.0.0.1]/a.png",
    "http://127.0.0.1%2f.pictures.example/a.png",
    "http://pictures%2eexample/a.png",
    "http://pictures.example%00.evil.example/a.png",
    "http://pictures .example/a.png",
    "http://pictures.example/a b.png",
    "http://pictures.example/a.png\r\nX-Evil: 1",
    "ht\ttp://pictures.example/a.png",
    "http://pictures..example/a.png",
    "http://" + "a" * 64 + ".example/a.png",
    "http://pictures.example/" + "a" * 5000,
    "http://localhost/a.png",
    "http://nowhere.example/a.png",
]

ATTACKS = [
    *ODD_URLS,
    *(f"http://[{address}]/a.png" if ":" in address else f"http://{address}/a.png" for address in PRIVATE),
    *(f"https://inside{number}.example/a.png" for number in range(len(PRIVATE))),
    "http://mixed.example/a.png",
    "http://empty.example/a.png",
]


def with_names(web: Web) -> Web:
    """Names that lead inside."""
    web.names |= {f"inside{number}.example": [[address]] for number, address in enumerate(PRIVATE)}
    web.names |= {"localhost": [["127.0.0.1", "::1"]], "mixed.example": [[PUBLIC, "10.0.0.1"]], "empty.example": [[]]}
    return web


@pytest.mark.parametrize("url", ATTACKS)
async def test_an_attack_connects_to_nothing(web: Web, url: str) -> None:
    """Refused with the field and a fix, and no connection is opened to any address."""
    assert len(await refusal(with_names(web), url)) > 20
    assert web.connected == []


IN_A_HEADER = [
    url for url in ATTACKS if url.isascii() and url.isprintable() and not url.startswith(("http:///", "pict", "//"))
]
"""The others cannot be spelled there, or are relative there."""


@pytest.mark.parametrize("url", [url for url in IN_A_HEADER if url != "http://"])
async def test_a_redirect_is_checked_as_the_first_url(web: Web, url: str) -> None:
    """A public server that redirects to a forbidden place is the only one that is connected to."""
    web.pages["/away"] = redirect(url)
    await refusal(with_names(web), "http://pictures.example/away")
    assert web.connected == [(PUBLIC, 80)]


async def test_a_name_is_resolved_once(web: Web) -> None:
    """A name that is public when checked and loopback a moment later is connected to as it was checked."""
    web.names["rebind.example"] = [[PUBLIC], ["127.0.0.1"]]
    assert await fetched(web, "http://rebind.example/a.png") == BODY
    assert web.connected == [(PUBLIC, 80)]
    assert web.resolved == ["rebind.example"]
    assert await refusal(web, "http://rebind.example/a.png")
    assert web.connected == [(PUBLIC, 80)]


async def test_a_redirect_to_itself_is_resolved_and_checked_again(web: Web) -> None:
    """The second connection to a name that has moved inside is refused."""
    web.names["rebind.example"] = [[PUBLIC], ["169.254.169.254"]]
    web.pages["/again"] = redirect("/a.png")
    await refusal(web, "http://rebind.example/again")
    assert web.connected == [(PUBLIC, 80)]


async def test_redirects_are_followed_and_bounded(web: Web) -> None:
    """Five are followed, relative or not; a circle ends."""
    for number in range(MAX_REDIRECTS):
        web.pages[f"/{number}"] = redirect(f"/{number + 1}")
    web.pages[f"/{MAX_REDIRECTS}"] = page(BODY)
    assert await fetched(web, "http://pictures.example/0") == BODY
    web.pages["/round"] = redirect("http://pictures.example/round")
    assert "redirects more than 5 times" in await refusal(web, "http://pictures.example/round")
    assert len(web.connected) == 2 * (MAX_REDIRECTS + 1)


async def test_a_redirect_may_have_letters_beyond_ascii(web: Web) -> None:
    """Servers write them in UTF-8."""
    web.pages["/a"] = redirect("/b\u00e4r.png")
    web.pages["/b%C3%A4r.png"] = page(BODY)
    assert await fetched(web, "http://pictures.example/a") == BODY


async def test_nothing_of_ours_is_sent(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's name is sent, no cookie of an earlier hop, and no proxy of the environment is asked."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    web.pages["/away"] = page(b"", status="302 Found", Location="/a.png?x=ü", Set_Cookie="a=b")
    web.pages["/a.png?x=%C3%BC"] = page(BODY)
    assert await refusal(web, "http://PICTURES.example./nothing#part")
    assert "host: pictures.example\r\n" in web.asked[0].lower()
    assert await fetched(web, "http://pictures.example/away") == BODY
    assert all("cookie" not in head.lower() and "authorization" not in head.lower() for head in web.asked)


async def _endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n")
    while True:
        writer.write(b"x" * 10_000)
        await writer.drain()


async def _silent(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\nx")
    await writer.drain()
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (page(BODY, status="404 Not Found"), "HTTP status 404"),
        (page(BODY, "text/html"), "Content-Type"),
        (page(BODY, "image/svg+xml"), "Content-Type"),
        (page(BODY, Content_Encoding="gzip"), "compressed"),
        (page(b"x" * 2000), "more than 1000 bytes"),
        (page(b"", Content_Length="9999999999"), "more than 1000 bytes"),
        (_endless, "more than 1000 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 100\r\n\r\nx",
            "broke off",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "broke off"),
        (b"HTTP/1.1 302 Found\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n", "broke off"),
    ],
)
async def test_a_bad_answer_is_refused(web: Web, answer: Page, reason: str) -> None:
    """By its status, type, encoding or size, which is bounded while it arrives too."""
    web.pages["/bad"] = answer
    assert reason in await refusal(web, "http://pictures.example/bad", FetchSettings(max_bytes=1000))


async def test_a_slow_body_is_given_up(web: Web) -> None:
    """The time is bounded as a whole."""
    web.pages["/slow"] = _silent
    assert "more than 0.2 s" in await refusal(web, "http://pictures.example/slow", FetchSettings(timeout_s=0.2))


async def test_the_settings_allow_ports_and_hosts(web: Web) -> None:
    """A named host may be private, on a port that is allowed, but no metadata service; others stay refused."""
    web.names |= {"files.corp": [["10.1.2.3"]], "other.corp": [["10.1.2.3"]], "meta.corp": [["169.254.169.254"]]}
    settings = FetchSettings(ports=(9000,), hosts=("Files.corp", "meta.corp", "::1"))
    assert await fetched(web, "http://files.corp:9000/a.png", settings) == BODY
    assert await fetched(web, "http://[::1]/a.png", settings) == BODY
    assert web.connected == [("10.1.2.3", 9000), ("::1", 80)]
    await refusal(web, "http://files.corp:9001/a.png", settings)
    await refusal(web, "http://other.corp/a.png", settings)
    await refusal(web, "http://meta.corp/a.png", settings)
    assert len(web.connected) == 2


async def test_names_that_take_long_hold_up_nothing_else() -> None:
    """As many lookups as run at once hang, and other work in threads still gets done."""
    go_on = threading.Event()

    def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        go_on.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port))]

    resolver = SystemResolver(look_up)
    lookups = [asyncio.ensure_future(resolver("slow.example", 80)) for _ in range(2 * AT_ONCE)]
    await asyncio.sleep(0)
    assert await asyncio.gather(*(asyncio.to_thread(int) for _ in range(50))) == [0] * 50
    assert not any(lookup.done() for lookup in lookups)
    go_on.set()
    assert await asyncio.gather(*lookups) == [[PUBLIC]] * (2 * AT_ONCE)


async def test_the_system_resolves_names_and_addresses() -> None:
    """Each address once."""
    assert await SystemResolver()("127.0.0.1", 80) == ["127.0.0.1"]


def _certificate(folder: Path, name: str) -> Path:
    key, subject = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "certificate.pem"
    file.write_bytes(key.private_bytes(*plain) + certificate.public_bytes(serialization.Encoding.PEM))
    return file


async def test_tls_verifies_the_name_at_the_checked_address(tmp_path: Path) -> None:
    """The certificate must be of the URL's host, not of the address that is connected to."""
    file = _certificate(tmp_path, "pictures.example")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    async with Web(serving) as web:
        web.names |= {"pictures.example": [[PUBLIC]], "others.example": [[PUBLIC]]}
        web.pages["/a.png"] = page(BODY)
        fetcher = Fetcher(FetchSettings(), web.resolve, web, lambda: ssl.create_default_context(cafile=str(file)))
        assert await fetcher.fetch("https://pictures.example/a.png", TYPES, "/image_url") == BODY
        with pytest.raises(InvalidRequest, match="cannot be reached"):
            await fetcher.fetch("https://others.example/a.png", TYPES, "/image_url")
        assert web.connected == [(PUBLIC, 443), (PUBLIC, 443)]
        assert len(web.asked) == 1
