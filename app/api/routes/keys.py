"""POST, GET and DELETE /keys."""

import asyncio
from typing import Annotated

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from app.access.key_file import MAX_OVERLAP_S, KeyAdministration
from app.access.keys import OPERATOR, KeyInfo, KeyRequest, NewKey
from app.api.openapi import OptionalBodyOperation, problems
from app.api.request import BodyRequest, Injected, OptionalJSON, StrictJSON, caller_of
from app.domain import ANONYMOUS
from app.errors import NotAllowed


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """All keys by name."""

    keys: list[KeyInfo]


class RotateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the change of a secret is to go."""

    overlap_s: Annotated[
        float, Meta(ge=0, le=MAX_OVERLAP_S, description="For so long the secret before it is accepted, too.")
    ] = 0.0


@post(
    "/keys",
    dto=StrictJSON[KeyRequest],
    return_dto=None,
    status_code=201,
    operation_id="create_key",
    summary="Create a key",
    responses=problems(400, 401, 403, 413, 415, 429, 503, 507),
    opt={"scope": "admin"},
)
async def create_key(request: BodyRequest, data: JSONBody[KeyRequest], keys: Injected[KeyAdministration]) -> NewKey:
    """The secret is in `key`, this once: only its hash is kept.

    The first key is made by `winnow keys create` on the service's machine, or comes from the environment.
    """
    refuse_strangers(request)
    return await asyncio.to_thread(keys.create, data)


@get(
    "/keys",
    operation_id="keys",
    summary="All keys",
    responses=problems(401, 403, 429, 503),
    opt={"scope": "admin"},
)
async def list_keys(keys: Injected[KeyAdministration]) -> KeyList:
    """Without their secrets; those too that are expired or revoked."""
    return KeyList(keys=await asyncio.to_thread(keys.all))


@post(
    "/keys/{key:str}/rotate",
    dto=OptionalJSON[RotateRequest],
    return_dto=None,
    status_code=200,
    operation_id="rotate_key",
    operation_class=OptionalBodyOperation,
    summary="Give a key a new secret",
    responses=problems(400, 401, 403, 404, 413, 415, 429, 503, 507),
    opt={"scope": "admin"},
)
async def rotate_key(
    request: BodyRequest, key: FromPath[str], data: JSONBody[RotateRequest], keys: Injected[KeyAdministration]
) -> NewKey:
    """By id or name. It stays the same key, with its bounds, its usage and its budgets."""
    refuse_strangers(request)
    return await asyncio.to_thread(keys.rotate, key, data.overlap_s)


@delete(
    "/keys/{key:str}",
    status_code=204,
    operation_id="revoke_key",
    summary="Revoke a key",
    responses=problems(401, 403, 404, 429, 503, 507),
    opt={"scope": "admin"},
    raises=[],
)
async def revoke_key(request: BodyRequest, key: FromPath[str], keys: Injected[KeyAdministration]) -> None:
    """By id or name, at once and for good. It stays in the list, and its name is not used again."""
    refuse_strangers(request)
    await asyncio.to_thread(keys.revoke, key)


def refuse_strangers(request: BodyRequest) -> None:
    """Raise NotAllowed for who needs no key: the first to come would make one, and shut the others out."""
    caller = caller_of(request)
    if caller.key == ANONYMOUS.key and OPERATOR not in caller.scopes:
        raise NotAllowed(
            "keys are made by an admin's key, or by `winnow keys` on the service's machine; "
            "WINNOW_ADMIN_KEY may give the first one"
        )
