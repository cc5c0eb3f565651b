"""A JSON body as a struct, and what is wrong with one, in words and with a pointer to the field.

No web framework is loaded for it: commands that do their work in their own process decode by it, too.
"""

import difflib
import re
from codecs import BOM_UTF8
from functools import cache
from typing import Any, TypeVar

import msgspec

from app.errors import FieldProblem, InvalidRequest

T = TypeVar("T", bound=msgspec.Struct)

_WHERE = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`(?P<path>[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.(?P<key>[^.\[]+)|\[(?P<index>\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"unknown field `(?P<field>[^`]*)`")
_NO_CHOICE = "Invalid enum value"
_FORM = re.compile(r"matching regex '(?P<pattern>.*)'$", re.DOTALL)
_NOT_BLANK = r"\\S"  # as msgspec repeats it
_PLACE = re.compile(r"\(byte (\d+)\)$")
_LONE = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
_ENCODED_SURROGATE = re.compile(rb"\xed[\xa0-\xbf]")
LONE_SURROGATE = "a text has a lone surrogate, such as \\ud83d without its other half, which is not a character"
"""JSON can spell it, and UTF-8 cannot carry it: it comes from cutting a text within an emoji."""

_LONGEST = 500
"""Characters of a problem with a field: it repeats what the client wrote, which may be long."""

NO_BODY = b"no body"
"""This object stands for an empty body: Litestar would not have it decoded."""

_MISSING = re.compile(r"missing required field `(?P<field>[^`]*)`")


def decode(body: bytes, kind: type[T], *, strict: bool = True) -> T:
    """The body as `kind`; if not `strict`, "1" is a number, too.

    Raises InvalidRequest with a pointer to the field, or the position of the syntax error.
    """
    body = b"" if body is NO_BODY else body.removeprefix(BOM_UTF8)
    if not body.strip():
        raise InvalidRequest(f"the body is empty; send a JSON object with {_fields(kind)}")
    try:
        decoded: T = _decoder(kind, strict=strict).decode(body)
        return decoded
    except msgspec.ValidationError as exc:
        problem = field_problem(str(exc), kind)
        where = problem.pointer or "the body"
        raise InvalidRequest(f"{where}: {problem.detail}", (problem,)) from exc
    except msgspec.DecodeError as exc:
        # msgspec has a sentence for each way in which the other half can be missing.
        place = _PLACE.search(str(exc))
        at = int(place[1]) if place else len(body)
        if _LONE.search(body[max(0, at - 24) : at + 12]):
            raise InvalidRequest(LONE_SURROGATE) from exc
        raise InvalidRequest(f"the body is not JSON: {exc}") from exc
    except UnicodeDecodeError as exc:
        if _ENCODED_SURROGATE.match(exc.object, exc.start):
            raise InvalidRequest(LONE_SURROGATE) from exc
        raise InvalidRequest(f"the body is not UTF-8: {exc.reason} at byte {exc.start} of a string") from exc
    except RecursionError as exc:
        raise InvalidRequest("the body is nested too deeply") from exc


def field_problem(message: str, kind: type[msgspec.Struct]) -> FieldProblem:
    """msgspec's message as a pointer and a sentence: "Expected `int`, got `str` - at `$.ranking.depth`".

    What it repeats of the body is cut.
    """
    problem = _field_problem(message, kind)
    return FieldProblem(_cut(problem.pointer), _cut(problem.detail))


def _field_problem(message: str, kind: type[msgspec.Struct]) -> FieldProblem:
    match = _WHERE.match(message)
    what, path = (match["what"], match["path"] or "$") if match else (message, "$")
    pointer = "".join(f"/{step['key'] or step['index']}" for step in _STEP.finditer(path)).removesuffix("/...")
    if missing := _MISSING.search(what):
        return FieldProblem(f"{pointer}/{missing['field']}", "this field is required")
    if unknown := _UNKNOWN.search(what):
        where = _struct(_type_at(kind, pointer))
        return FieldProblem(f"{pointer}/{_escaped(unknown['field'])}", _unknown(unknown["field"], where))
    if what.startswith(_NO_CHOICE) and (words := _words(_type_at(kind, pointer))):
        return FieldProblem(pointer, f"expected one of {', '.join(words)}, got{what.removeprefix(_NO_CHOICE)}")
    what = what.replace("`", "").replace("Expected", "expected")
    if form := _FORM.search(what):
        what = _in_words(form["pattern"], _type_at(kind, pointer))
    return FieldProblem(pointer, f"{what} (a key of it)" if match and match["key"] else what)


@cache
def _decoder(kind: type[T], *, strict: bool) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind, strict=strict)


def _type_at(kind: type[msgspec.Struct], pointer: str) -> Any:
    """msgspec's description of the type at a pointer; None if the pointer leads nowhere."""
    info: Any = msgspec.inspect.type_info(kind)
    for step in pointer.split("/")[1:]:
        info = _struct(info)
        fields = {field.encode_name: field.type for field in info.fields} if info else {}
        info = getattr(fields.get(step), "item_type", fields.get(step)) if not step.isdigit() else info
    return info


def _struct(info: Any) -> msgspec.inspect.StructType | None:
    return next((option for option in _options(info) if isinstance(option, msgspec.inspect.StructType)), None)


def _words(info: Any) -> list[str]:
    """The values of a Literal."""
    literals = (option for option in _options(info) if isinstance(option, msgspec.inspect.LiteralType))
    return [str(value) for literal in literals for value in literal.values]


def _in_words(pattern: str, info: Any) -> str:
    """What a regular expression asks for: people should not have to read it."""
    if pattern == _NOT_BLANK:
        return "expected more than white space"
    descriptions = (getattr(option, "extra_json_schema", None) or {} for option in (info, *_options(info)))
    about = next((said["description"] for said in descriptions if "description" in said), "")
    return f"not of the expected form{about and f': {about[:1].lower()}{about[1:]}'}".rstrip(".")


def _options(info: Any) -> tuple[Any, ...]:
    return info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)


def _unknown(field: str, where: msgspec.inspect.StructType | None) -> str:
    if where is None:
        return "unknown field"
    near = difflib.get_close_matches(field, where.cls.__struct_fields__, n=1)
    return f"unknown field; {f'did you mean {near[0]}?' if near else f'known are {_fields(where.cls)}'}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _fields(kind: type[msgspec.Struct]) -> str:
    return ", ".join(kind.__struct_fields__)


def _escaped(token: str) -> str:
    return token.replace("~", "~0").replace("/", "~1")
