"""The page at /, and its files."""

import re

import httpx
import pytest

pytestmark = pytest.mark.anyio


async def test_the_page_is_served_with_a_policy_of_its_own(client: httpx.AsyncClient) -> None:
    """Its own scripts run, and nothing else: no other host, nothing inline, no text as markup."""
    page = await client.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    (policy,) = page.headers.get_list("content-security-policy")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-frame-options"] == "DENY"


async def test_a_page_that_has_not_changed_is_not_sent_again(client: httpx.AsyncClient) -> None:
    """By its tag; its files keep for a year, under an address that changes with them."""
    page = await client.get("/")
    again = await client.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == page.headers["etag"]
    names = re.findall(r'(?:src|href)="(web/[^"]+)"', page.text)
    assert any(name.endswith("/main.js") for name in names)
    for name in names:
        file = await client.get(f"/{name}")
        assert (file.status_code, "immutable" in file.headers["cache-control"]) == (200, True), name
    assert (await client.get(f"/{names[0]}")).headers["content-type"] == "image/svg+xml"


async def test_a_page_from_before_an_upgrade_finds_its_files(client: httpx.AsyncClient) -> None:
    """Under the old version are the new files, which are not kept."""
    file = await client.get("/web/0123456789abcdef/words/de.js")
    assert (file.status_code, file.headers["cache-control"]) == (200, "no-cache")
    assert file.headers["content-type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize(
    "name", ["nope.js", "index.html", "../routes.py", "%2e%2e/routes.py", "words/../../routes.py", "/etc/passwd"]
)
async def test_no_other_file_is_served(client: httpx.AsyncClient, name: str) -> None:
    """404 as a problem, whatever the path says."""
    missing = await client.get(f"/web/0123456789abcdef/{name}")
    assert missing.status_code == 404
    assert missing.headers["content-type"].startswith("application/problem+json")
