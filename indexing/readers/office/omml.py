"""Office equations (OMML) as one readable line, close to TeX."""

from lxml import etree

from indexing.readers.zip_xml import attribute, child, local

_DEPTH = 40


def equation_text(element: etree._Element, depth: int = 0) -> str:
    """An `m:oMath` or anything inside it, as text."""
    if depth > _DEPTH:
        return ""
    name = local(element)
    if name == "t":
        return element.text or ""
    render = _RENDERERS.get(name)
    return render(element, depth) if render else _inner(element, depth)


def _inner(element: etree._Element, depth: int) -> str:
    return "".join(equation_text(inner, depth + 1) for inner in element if not local(inner).endswith("Pr"))


def _part(element: etree._Element, name: str, depth: int) -> str:
    inner = child(element, name)
    return _inner(inner, depth + 1).strip() if inner is not None else ""


def _grouped(text: str) -> str:
    return text if len(text) <= 1 else f"{{{text}}}"


def _property(element: etree._Element, holder: str, name: str, default: str) -> str:
    inner = child(element, holder, name)
    return default if inner is None else attribute(inner, "val") or ""


def _fraction(element: etree._Element, depth: int) -> str:
    return f"({_part(element, 'num', depth)})/({_part(element, 'den', depth)})"


def _script(element: etree._Element, depth: int) -> str:
    below, above = _part(element, "sub", depth), _part(element, "sup", depth)
    lower = f"_{_grouped(below)}" if below else ""
    return _part(element, "e", depth) + lower + (f"^{_grouped(above)}" if above else "")


def _nary(element: etree._Element, depth: int) -> str:
    below, above = _part(element, "sub", depth), _part(element, "sup", depth)
    mark = _property(element, "naryPr", "chr", "∫")
    lower = f"_{_grouped(below)}" if below else ""
    return mark + lower + (f"^{_grouped(above)}" if above else "") + f" {_part(element, 'e', depth)}"


def _delimited(element: etree._Element, depth: int) -> str:
    parts = [_inner(inner, depth + 1) for inner in element if local(inner) == "e"]
    opening, closing = _property(element, "dPr", "begChr", "("), _property(element, "dPr", "endChr", ")")
    return opening + _property(element, "dPr", "sepChr", "|").join(parts) + closing


def _radical(element: etree._Element, depth: int) -> str:
    degree = _part(element, "deg", depth)
    return f"{degree if degree else ''}√({_part(element, 'e', depth)})"


def _function(element: etree._Element, depth: int) -> str:
    return f"{_part(element, 'fName', depth)} {_part(element, 'e', depth)}"


def _matrix(element: etree._Element, depth: int) -> str:
    rows = [row for row in element if local(row) in ("mr", "e")]
    cells = [
        [_inner(cell, depth + 1) for cell in row] if local(row) == "mr" else [_inner(row, depth + 1)] for row in rows
    ]
    return "; ".join(", ".join(row) for row in cells)


_RENDERERS = {
    "f": _fraction,
    "sSub": _script,
    "sSup": _script,
    "sSubSup": _script,
    "nary": _nary,
    "d": _delimited,
    "rad": _radical,
    "func": _function,
    "m": _matrix,
    "eqArr": _matrix,
}
