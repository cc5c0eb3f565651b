"""GET / and the files of the page: read once, kept in memory, and named by a digest so that browsers keep them, too."""

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath

from app.errors import NotFound

FILES = Path(__file__).with_name("page")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing of another host, nothing inline, and no text becomes markup: browsers refuse `innerHTML` altogether."""

_MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

_A_YEAR = "public, max-age=31536000, immutable"
_ASK_FIRST = "no-cache"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The page's HTML, and its other files by their path. `version` changes with any of them."""

    version: str
    html: bytes
    files: Mapping[str, bytes]


@cache
def load_page(folder: Path = FILES) -> Page:
    """Read the files of the page. Its modules are named in its head: else browsers find them one after the other."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in _MEDIA_TYPES)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    html = files.pop("index.html").decode()
    version = sha256(b"".join([html.encode(), *files.values()])).hexdigest()[:16]
    modules = (name for name in files if name.endswith(".js") and not name.startswith(("words/", "theme", "try")))
    preloads = "\n".join(f'<link rel="modulepreload" href="web/{version}/{name}">' for name in modules)
    html = html.replace("<!-- modules -->", preloads).replace("{version}", version)
    return Page(version=version, html=html.encode(), files=files)


@get("/", include_in_schema=False, opt={"scope": "public"})
async def show_page(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The page to use the service by hand. It has no content of its own, and so needs no key."""
    page = load_page()
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": _ASK_FIRST, "ETag": f'"{page.version}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(b"", status_code=304, headers=headers, media_type=_MEDIA_TYPES[".html"])
    return Response(page.html, headers=headers, media_type=_MEDIA_TYPES[".html"])


@get("/web/{version:str}/{name:path}", include_in_schema=False, opt={"scope": "public"})
async def show_page_file(version: FromPath[str], name: FromPath[Path]) -> Response[bytes]:
    """A file of the page. One of another version is asked for by a page from before an upgrade. Raises NotFound."""
    page, path = load_page(), name.as_posix().removeprefix("/")
    content = page.files.get(path)
    if content is None:
        raise NotFound("the page has no such file; load it anew")
    caching = _A_YEAR if version == page.version else _ASK_FIRST
    return Response(content, headers={"Cache-Control": caching}, media_type=_MEDIA_TYPES[Path(path).suffix])
