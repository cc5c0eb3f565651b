"""The one seam where foreign errors become ours."""

from email.utils import formatdate

import httpx2
import pytest
from google.auth import exceptions as auth
from google.genai import errors as sdk

from app.backends.gemini.errors import FOREIGN, peer_of, translate
from app.errors import UpstreamBadReply, UpstreamError, UpstreamRejected, UpstreamTimeout, UpstreamUnavailable
from tests.fakes.gemini_refusals import SECRET

NOW = 1_800_000_000.0
PEER = peer_of("flash", "m", None)

TRANSLATED: dict[type[Exception], type[UpstreamError] | None] = {
    sdk.APIError: UpstreamUnavailable,
    sdk.ClientError: UpstreamUnavailable,
    sdk.ServerError: UpstreamUnavailable,
    sdk.UnknownApiResponseError: UpstreamBadReply,
    sdk.UnknownFunctionCallArgumentError: UpstreamBadReply,  # of tools, which we do not use
    sdk.UnsupportedFunctionError: UpstreamBadReply,
    sdk.FunctionInvocationError: UpstreamBadReply,
    sdk.ContinuationInterruptedError: None,  # of interactions, which we do not use
    httpx2.ConnectTimeout: UpstreamUnavailable,
    httpx2.ReadTimeout: UpstreamTimeout,
    httpx2.WriteTimeout: UpstreamTimeout,
    httpx2.PoolTimeout: UpstreamUnavailable,
    httpx2.TimeoutException: UpstreamUnavailable,
    httpx2.ConnectError: UpstreamUnavailable,
    httpx2.ReadError: UpstreamUnavailable,
    httpx2.WriteError: UpstreamUnavailable,
    httpx2.CloseError: UpstreamUnavailable,
    httpx2.NetworkError: UpstreamUnavailable,
    httpx2.LocalProtocolError: UpstreamUnavailable,
    httpx2.RemoteProtocolError: UpstreamUnavailable,
    httpx2.ProtocolError: UpstreamUnavailable,
    httpx2.ProxyError: UpstreamUnavailable,
    httpx2.TransportError: UpstreamUnavailable,
    httpx2.RequestError: UpstreamUnavailable,
    httpx2.HTTPError: UpstreamUnavailable,
    httpx2.HTTPStatusError: UpstreamUnavailable,
    httpx2.UnsupportedProtocol: UpstreamRejected,
    httpx2.InvalidURL: UpstreamRejected,
    httpx2.DecodingError: UpstreamBadReply,
    httpx2.SSEError: UpstreamBadReply,
    httpx2.TooManyRedirects: UpstreamBadReply,
    # Wrong use of the client: mistakes of ours.
    httpx2.CookieConflict: None,
    httpx2.StreamError: None,
    httpx2.StreamConsumed: None,
    httpx2.StreamClosed: None,
    httpx2.ResponseNotRead: None,
    httpx2.RequestNotRead: None,
    auth.TransportError: UpstreamUnavailable,
    auth.TimeoutError: UpstreamUnavailable,
}


def foreign_errors() -> list[type[Exception]]:
    """All that the SDK and the libraries below it export."""
    modules = (sdk, httpx2, auth)
    exported = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return [kind for kind in exported if issubclass(kind, Exception) and not issubclass(kind, Warning)]


@pytest.mark.parametrize("kind", foreign_errors())
def test_every_foreign_error_is_translated_or_known_to_be_a_mistake_of_ours(kind: type[Exception]) -> None:
    """An error that a new version brings fails here until someone decides about it."""
    default = UpstreamRejected if issubclass(kind, auth.GoogleAuthError) else "undecided"
    expected = TRANSLATED.get(kind, default)
    assert issubclass(kind, FOREIGN) == (expected is not None)
    if expected is not None:
        error = translate(made(kind), PEER, httpx2.Response(200), NOW)
        assert type(error) is expected
        assert SECRET not in str(error)


def made(kind: type[Exception]) -> Exception:
    """An instance, with a text that must not come out."""
    if issubclass(kind, sdk.APIError):
        return kind(500, {"error": {"message": SECRET}})
    if issubclass(kind, httpx2.HTTPStatusError):
        return kind(SECRET, request=httpx2.Request("GET", "http://x"), response=httpx2.Response(500))
    return kind(SECRET)


def test_before_there_is_a_reply_a_type_error_is_a_mistake_of_ours() -> None:
    """Only what the SDK trips over in a reply may count as the reply's fault."""
    assert translate(TypeError("ours"), PEER, None, NOW) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("12", 12.0), (formatdate(NOW + 30, usegmt=True), 30.0), (formatdate(NOW - 30, usegmt=True), 0.0), ("nan", None)],
)
def test_the_header_is_read_as_seconds_or_as_a_date(header: str, seconds: float | None) -> None:
    """Retry-After counts where Google's own RetryInfo is missing, also beside a 503."""
    for status in (429, 503):
        response = httpx2.Response(status, headers={"retry-after": header})
        error = translate(sdk.APIError(status, {"error": {}}, response), PEER, response, NOW)
        assert error is not None
        assert error.retry_after == seconds
