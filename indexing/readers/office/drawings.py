"""The text of charts and diagrams, which Word, Excel and PowerPoint keep in parts of their own."""

from lxml import etree

from indexing.readers.builder import TextWriter
from indexing.readers.zip_xml import child, descendants


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
