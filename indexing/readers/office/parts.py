"""What Word, Excel and PowerPoint share: charts and diagrams, equations (OMML) as one line close to TeX, and the
characters of the fonts Symbol and Wingdings, which put signs in the places of letters.
"""

from lxml import etree

from indexing.readers.builder import TextWriter
from indexing.readers.zip_xml import attribute, child, descendants, local


def write_chart(chart: etree._Element, writer: TextWriter) -> None:
    """A chart is the table that it was drawn from."""
    title = child(chart, "chart", "title")
    if title is not None:
        writer.add("paragraph", "".join(text.text or "" for text in descendants(title, "t")))
    series = list(descendants(chart, "ser"))[:200]
    names = [" ".join(_points(one, "tx")) for one in series]
    categories = _points(series[0], "cat") or _points(series[0], "xVal") if series else []
    values = [_points(one, "val") or _points(one, "yVal") for one in series]
    rows = [["", *names]]
    rows += [
        [label, *(column[index] if index < len(column) else "" for column in values)]
        for index, label in enumerate(categories)
    ]
    writer.add_table(rows, header=True)


def _points(series: etree._Element, name: str) -> list[str]:
    holder = child(series, name)
    return [value.text or "" for value in descendants(holder, "v")] if holder is not None else []


def write_diagram(data: etree._Element, writer: TextWriter) -> None:
    """The texts of a diagram (SmartArt), an item each."""
    for point in descendants(data, "pt"):
        writer.add("list_item", "".join(inner.text or "" for inner in descendants(point, "t")))


_SYMBOL: dict[int, str] = dict(
    zip(
        [*range(0x20, 0x7F), *range(0xA1, 0xFF)],
        " !∀#∃%&∋()∗+,−./0123456789:;<=>?≅ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ[∴]⊥_‾αβχδεφγηιϕκλμνοπθρστυϖωξψζ{|}∼"
        "ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…⏐⎯↵ℵℑℜ℘⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠∇®©™∏√⋅¬∧∨⇔⇐⇑⇒⇓◊⟨®©™∑⎛⎜⎝⎡⎢⎣⎧⎨⎩⎪\uf8ff⟩∫⌠⎮⌡⎞⎟⎠⎤⎥⎦⎫⎬⎭",
        strict=True,
    )
)
_WINGDINGS: dict[int, str] = {
    **dict(zip(range(0x8C, 0x96), "❶❷❸❹❺❻❼❽❾❿", strict=True)),
    **dict(zip(range(0x81, 0x8B), "①②③④⑤⑥⑦⑧⑨⑩", strict=True)),
    **{0x28: "☎", 0x2A: "✉", 0x4A: "☺", 0x4C: "☹", 0x6C: "●", 0x6E: "■", 0x6F: "☐", 0x71: "❑", 0x75: "◆", 0xA7: "▪"},
    **{0xA8: "☐", 0xD8: "➢", 0xDF: "←", 0xE0: "→", 0xE1: "↑", 0xE2: "↓", 0xE8: "➔", 0xFB: "✗", 0xFC: "✓", 0xFD: "☒"},
    **{0xFE: "☑"},
}
_FONTS = {"symbol": _SYMBOL, "wingdings": _WINGDINGS}


def symbol(font: str, code: str) -> str:
    """The character with this hexadecimal code; a sign that no character stands for is left out."""
    try:
        number = int(code, 16)
    except ValueError:
        return ""
    # Fonts of symbols have their characters in a private area.
    private = number - 0xF000 if 0xF000 <= number <= 0xF0FF else number
    known = _FONTS.get(font.lower())
    if known is not None:
        return known.get(private, "")
    return chr(number) if 0x20 <= number < 0xD800 else ""


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
