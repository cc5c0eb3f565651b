"""Front matter: fields between two lines of `---` at the head of a text. Pure.

Read is what a filter can use, of YAML's many ways to write it: a field a line, and lists in brackets or an item a line.
What is nested or folded has no field; as all of the head it stays a part of the text.
"""

import re

Scalar = str | int | float | bool
Fields = dict[str, Scalar | list[Scalar]]

_HEAD = re.compile(r"---[ \t]*\r?\n(.*?)\r?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_FIELD = re.compile(r"(\w[\w -]{0,63}?)[ \t]*:(?:[ \t]+(.*))?")
_ITEM = re.compile(r"[ \t]*-[ \t]+(?![\w-]+:(?:[ \t]|$))(\S.*)")
_LISTED = re.compile(r"""\s*("[^"]*"|'[^']*'|[^,]+)""")
_COMMENT = re.compile(r"(?:^|[ \t])#.*")
_WHOLE = re.compile(r"[+-]?(?:0|[1-9]\d{0,14})", re.ASCII)
_DECIMAL = re.compile(r"[+-]?\d{1,15}\.\d{1,15}", re.ASCII)
_NOTHING = ("", "~", "null", "|", ">", "|-", ">-")
_TRUTHS = {"true": True, "false": False}


def front_matter(text: str) -> tuple[int, Fields]:
    """Where it ends, 0 without any; and its fields: texts, numbers, truths and lists of them."""
    head = _HEAD.match(text)
    return (head.end(), _fields(head[1])) if head else (0, {})


def _fields(head: str) -> Fields:
    found: Fields = {}
    items: list[Scalar] = []
    for line in head.splitlines():
        if field := _FIELD.fullmatch(line):
            value, items = _value((field[2] or "").strip()), []
            found[field[1]] = items if value is None else value
        elif item := _ITEM.fullmatch(line):
            items.append(_scalar(item[1].strip()))
    return {name: value for name, value in found.items() if value != []}


def _value(text: str) -> Scalar | list[Scalar] | None:
    """None where nothing stands, so that a list may follow."""
    bare = _COMMENT.sub("", text).strip()
    if bare.startswith("[") and bare.endswith("]"):
        return [_scalar(part.strip()) for part in _LISTED.findall(bare[1:-1]) if part.strip()]
    return None if bare in _NOTHING else _scalar(text)


def _scalar(text: str) -> Scalar:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    bare = _COMMENT.sub("", text).strip()
    if _WHOLE.fullmatch(bare):
        return int(bare)
    return float(bare) if _DECIMAL.fullmatch(bare) else _TRUTHS.get(bare.lower(), bare)
