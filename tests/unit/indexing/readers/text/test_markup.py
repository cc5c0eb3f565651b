"""XML, LaTeX, notebooks and subtitles: read for their text."""

import json

import pytest

from indexing.errors import UnreadableDocument
from indexing.readers import ReadLimits, read
from tests.unit.indexing.readers.making import read_one, texts


def test_jats() -> None:
    """Titles of sections are headings by their depth; markup inside of paragraphs leaves no trace."""
    source = (
        "<article><front><article-meta><title-group><article-title>On Ducks</article-title></title-group>"
        "<abstract><p>Ducks <italic>swim</italic>.</p></abstract></article-meta></front>"
        "<body><sec><title>Methods</title>"
        "<p>We looked.</p><sec><title>Birds</title><list><list-item><p>Mallard</p></list-item></list>"
        "<table><tr><td>a</td><td>1</td></tr></table></sec></sec></body></article>"
    )
    document = read_one(source.encode(), "a.xml")
    assert texts(document) == ["On Ducks", "Ducks swim.", "Methods", "We looked.", "Birds", "- Mallard", "a | 1"]
    assert [block.level for block in document.blocks if block.kind == "heading"] == [1, 1, 2]
    assert document.title == "On Ducks"


def test_docbook_and_other_xml() -> None:
    """With namespaces; the texts of XML of no known kind are paragraphs."""
    book = (
        '<book xmlns="http://docbook.org/ns/docbook"><chapter><title>Pumps</title><para>40 l/min.</para>'
        "<programlisting>x = 1\n  y</programlisting></chapter></book>"
    )
    document = read_one(book.encode(), "a.xml")
    assert [block.kind for block in document.blocks] == ["heading", "paragraph", "code"]
    other = read_one(b"<parts><part><name>Bolt</name><price>0.35</price></part></parts>", "a.xml")
    assert texts(other) == ["Bolt", "0.35"]


def test_xml_around_entities() -> None:
    """What stands beside a reference to another file, and text behind an element, is read."""
    book = (
        b'<!DOCTYPE book [<!ENTITY pumps SYSTEM "file:///etc/passwd"><!ENTITY v "2.0">]>'
        b"<book><title>Manual</title>&pumps;<chapter><para>Version &v; is out.</para> Ask us. </chapter></book>"
    )
    document = read_one(book, "a.xml")
    assert texts(document) == ["Manual", "Version &v; is out.", "Ask us."]


def test_latex() -> None:
    """Sections, items and code; formulas stay, commands and comments go."""
    source = r"""\documentclass{article}\title{On \emph{Pumps}}
\begin{document}
\section{Flow}\label{s} It is \textbf{40}~l/min, 5\% more. % not this
The law: $Q = \frac{V}{t}$ \cite{a}.

\begin{itemize}\item First \item Second\end{itemize}
\subsection{Code}
\begin{verbatim}
x_1 = {2}
\end{verbatim}
\end{document}"""
    document = read_one(source.encode(), "a.tex")
    assert texts(document) == [
        "Flow",
        r"It is 40 l/min, 5% more. The law: $Q = \frac{V}{t}$ .",
        "- First",
        "- Second",
        "Code",
        "x_1 = {2}",
    ]


def test_a_notebook() -> None:
    """Text with its headings, code, and what was printed; no pictures."""
    cells = [
        {"cell_type": "markdown", "source": ["# Pumps\n", "\n", "They pump."]},
        {
            "cell_type": "code",
            "source": "print(40)",
            "outputs": [{"text": ["40\n"]}, {"data": {"image/png": "iVBOR", "text/plain": "<Figure>"}}],
        },
    ]
    document = read_one(json.dumps({"cells": cells, "nbformat": 4}).encode(), "a.ipynb")
    assert texts(document) == ["Pumps", "They pump.", "print(40)", "40", "<Figure>"]
    assert document.title == "Pumps"
    with pytest.raises(UnreadableDocument, match="notebook"):
        read(b'{"a": 1}', "a.ipynb", ReadLimits())


@pytest.mark.parametrize("name", ["a.srt", "a.vtt"])
def test_subtitles(name: str) -> None:
    """What is said, once, without times, numbers and markup."""
    source = (
        "WEBVTT\n\n1\n00:00:01,000 --> 00:00:02,000\n<i>The pump</i> is &amp; stays\n\n"
        "2\n00:00:02.000 --> 00:00:03.000 align:start\nThe pump is & stays\nat 3 bar.\n"
    )
    assert read_one(source.encode(), name).text == "The pump is & stays at 3 bar."
