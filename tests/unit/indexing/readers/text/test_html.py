"""HTML, EPUB and e-mail: pages as a reader would see them."""

from email.message import EmailMessage

import pytest

from indexing.readers import ReadLimits, read
from tests.unit.indexing.readers.making import epub, read_one, texts

PAGE = """<!DOCTYPE html><html lang="en"><head><title>The Page</title><meta name="author" content="Jo">
<style>p {color: red}</style></head><body>
<header><a href="/">Home</a></header><nav><ul><li>Menu entry</li></ul></nav>
<div class="cookie-banner">We value your privacy</div>
<main><h1>Ducks</h1><p>A <b>duck</b> swims.<br>It quacks.</p><script>alert(1)</script>
<h2>Kinds</h2><ul><li>Mallard<ul><li>male</li></ul></li><li><p>Teal</p></li></ul><ol start="3"><li>third</li></ol>
<table><caption>Sizes</caption><tr><th>Duck</th><th>cm</th></tr><tr><td rowspan="2">Mallard</td><td>50</td></tr>
<tr><td>60</td></tr></table>
<pre>def quack():
    pass</pre><blockquote><p>Said once.</p></blockquote><div hidden>secret</div><p style="display: none">gone</p></main>
<footer>Imprint</footer></body></html>"""


def test_content_stays_and_navigation_goes() -> None:
    """Headings, lists, tables, code and quotes are read; menus, banners, scripts and hidden parts are not."""
    document = read_one(PAGE.encode(), "page.html")
    assert texts(document) == [
        "Ducks",
        "A duck swims.\nIt quacks.",
        "Kinds",
        "- Mallard",
        "- male",
        "- Teal",
        "3. third",
        "Sizes",
        "Duck | cm",
        "Mallard | 50",
        "Mallard | 60",
        "def quack():\n    pass",
        "Said once.",
    ]
    kinds = [block.kind for block in document.blocks]
    assert kinds[-2:] == ["code", "quote"]
    assert [block.header for block in document.blocks if block.kind == "table_row"] == [True, False, False]
    assert (document.title, document.metadata) == ("The Page", {"author": "Jo", "lang": "en"})


def test_a_page_that_is_all_boilerplate_is_read_after_all() -> None:
    """Where the rules would leave nothing, nothing is left out."""
    assert (
        read_one(b'<div class="menu"><p>Soup of the day: lentils.</p></div>', "a.html").text
        == "Soup of the day: lentils."
    )


def test_a_layout_table_is_read_as_text() -> None:
    """A table that only places paragraphs on the page gives no rows."""
    body = "<p>" + "Long prose. " * 200 + "</p>"
    document = read_one(f"<table><tr><td>Side</td><td>{body}</td></tr></table>".encode(), "a.html")
    assert {block.kind for block in document.blocks} == {"paragraph"}


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ('<div class="site with-sidebar"><h2>Returns</h2><p>Within 45 days.</p></div>', "Returns\n\nWithin 45 days."),
        (
            '<div class="cookie-policy"><p>We keep them for 13 months.</p></div>',
            "We keep them for 13 months.",
        ),
        ('<section id="cookies"><p>We keep them for 13 months.</p></section>', "We keep them for 13 months."),
        ('<div class="menu"><h3>Starters</h3><p>Soup of lentils, 4 €.</p></div>', "Starters\n\nSoup of lentils, 4 €."),
        (
            '<div style="visibility:hidden"><p>Holds 40 litres. ' + "Wide. " * 20 + "</p></div>",
            "Holds 40 litres.",
        ),
        ("<h2><button>How long is the warranty?</button></h2><p>3 years.</p>", "How long is the warranty?\n\n3 years."),
        ('<button class="accordion">Who pays the postage?</button><p>We do.</p>', "Who pays the postage?\n\nWe do."),
        ('<div hidden="until-found"><p>Found by searching.</p></div>', "Found by searching."),
        ('<button aria-controls="a">Ports</button><div id="a" hidden><p>Two ports.</p></div>', "Two ports."),
        (
            "<noscript><p>The timetable: daily at 9, 12, 15 and 18 h</p></noscript>",
            "The timetable: daily at 9, 12, 15 and 18 h",
        ),
        ('<div><template shadowrootmode="open"><p>In the shadow.</p></template></div>', "In the shadow."),
    ],
)
def test_a_word_in_a_class_is_no_proof(part: str, text: str) -> None:
    """Text stays unless its own element, by what it holds, is a menu, a banner or hidden for good."""
    page = f"<body><p>The imprint and whatever else there is.</p>{part}</body>"
    assert text in read_one(page.encode(), "a.html").text


@pytest.mark.parametrize(
    "part",
    [
        '<div class="left-sidebar"><ul><li><a href="/">Home</a></li><li><a href="/a">Away</a></li></ul></div>',
        '<div class="cookie-consent"><p>We value your privacy.</p><button>Accept</button></div>',
        '<div class="modal"><p>Get our letters.</p><input type="email"><button>Send</button></div>',
        '<button aria-controls="nav">Menu</button><div id="nav" hidden><a href="/">Home</a></div>',
        "<noscript>You need to enable JavaScript to run this application.</noscript>",
        "<template><p>Dear {{ name }}</p></template>",
        "<p>Copied <button>Copy</button></p>".replace("Copied ", ""),
    ],
)
def test_furniture_goes(part: str) -> None:
    """Menus of links, boxes that ask for something, excuses and templates are no content."""
    page = f"<body><p>The content of the page is this sentence and nothing more.</p>{part}</body>"
    assert read_one(page.encode(), "a.html").text == "The content of the page is this sentence and nothing more."


def test_a_storm_of_attributes_costs_little() -> None:
    """libxml2 takes quadratic time for a tag with 300,000 attributes: the tag is bared before."""
    storm = "".join(f' a{number}="x>y"' for number in range(300_000))
    assert read_one(f"<p{storm}>Still <b>here</b>.</p>".encode(), "a.html").text == "Still here."


def test_long_tags_keep_their_attributes() -> None:
    """One attribute may be long: a picture in it, say."""
    picture = f'<img src="data:image/png;base64,{"A" * 20_000}" alt="A pump">'
    assert read_one(f"<p>See {picture}</p>".encode(), "a.html").text == "See A pump"


@pytest.mark.parametrize(
    "page",
    [
        '<meta charset="shift_jis"><p>東京は日本の首都です。</p>'.encode("cp932"),
        '<meta http-equiv="Content-Type" content="text/html; charset=iso-2022-jp"><p>東京は日本の首都です。</p>'.encode(
            "iso2022_jp"
        ),
        "<p>東京は日本の首都です。</p>".encode("utf-16"),
        '<?xml version="1.0" encoding="utf-8"?><html><body><p>東京は日本の首都です。</p></body></html>'.encode(),
    ],
)
def test_declared_encodings(page: bytes) -> None:
    """The page's own declaration is believed where nothing contradicts it."""
    assert read_one(page, "a.html").text == "東京は日本の首都です。"


def test_deep_nesting_is_survived() -> None:
    """Thousands of open elements cost no stack, and the text within reach is kept."""
    page = "<p>Above.</p>" + "<div>" * 1500 + "deep" + "</div>" * 1500
    assert "deep" in read_one(page.encode(), "a.html").text
    assert read_one(("<p>Above.</p>" + "<b>" * 200_000 + "deeper").encode(), "a.html").text.startswith("Above.")


def test_html_is_known_by_its_looks() -> None:
    """Without a telling name the first tag tells."""
    assert read_one(b"<!doctype html><p>Hello</p>", "download").media_type == "text/html"


def test_epub_follows_its_spine() -> None:
    """Chapters come in reading order; the package file gives title, author and language."""
    document = read_one(epub({"one": "<h1>One</h1><p>First.</p>", "two": "<h1>Two</h1><p>Second.</p>"}), "b.epub")
    assert texts(document) == ["One", "First.", "Two", "Second."]
    assert (document.title, document.metadata) == ("The Book", {"author": "A. Writer", "lang": "en"})


def test_epub_names_in_another_case() -> None:
    """Readers on other systems know no case, and neither do many books."""
    book = epub({"one": "<p>First.</p>", "two": "<p>Second.</p>"}, rename={"OEBPS/two.xhtml": "OEBPS/Two.XHTML"})
    assert read_one(book, "b.epub").text == "First.\n\nSecond."


def mail(html: str = "", attachment: bool = False) -> EmailMessage:
    """A message with a plain body."""
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "Grüße", "Ann <ann@example.org>", "bob@example.org"
    message["Date"] = "Fri, 16 Dec 2022 17:04:16 -0500"
    message.set_content("Hello Bob,\n\nsee you at 5 €.\n\n> earlier words\n")
    if html:
        message.add_alternative(html, subtype="html")
    if attachment:
        message.add_attachment(b"\x00\x01", maintype="application", subtype="pdf", filename="plan.pdf")
    return message


def test_mail_body_and_headers() -> None:
    """The plain body is read, quotes marked, the names of attachments below it; they and the headers are metadata."""
    document, refused = read(mail("<p>Hello <b>Bob</b></p>", attachment=True).as_bytes(), "m.eml", ReadLimits())
    assert (refused.part, refused.reason) == ("/plan.pdf", "corrupt")
    assert texts(document) == ["Hello Bob,", "see you at 5 €.", "> earlier words", "Attachment: plan.pdf"]
    assert [block.kind for block in document.blocks][-2:] == ["quote", "paragraph"]
    assert document.title == "Grüße"
    assert document.metadata == {
        "from": "Ann <ann@example.org>",
        "to": "bob@example.org",
        "subject": "Grüße",
        "date": "2022-12-16T17:04:16-05:00",
        "attachments": ["plan.pdf"],
    }


def test_mail_that_is_html_only() -> None:
    """Its page is read as a page."""
    message = EmailMessage()
    message["Subject"] = "News"
    message.set_content("<h1>News</h1><p>Today.</p>", subtype="html")
    assert texts(read_one(message.as_bytes(), "m.eml")) == ["News", "Today."]


HEAD = b"From: a@example.org\r\nSubject: Test\r\nMIME-Version: 1.0\r\n"


def parts(kind: str, *contents: tuple[str, str]) -> bytes:
    """A mail of several parts."""
    body = "".join(f"--B\r\nContent-Type: {type_}\r\n\r\n{text}\r\n" for type_, text in contents)
    return HEAD + f'Content-Type: multipart/{kind}; boundary="B"\r\n\r\n{body}--B--\r\n'.encode()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            parts("mixed", ("text/html", "<p>It moves to 14 May.</p>"), ("text/plain", "___\r\nlist")),
            "It moves to 14 May.\n\n___\nlist",
        ),
        (
            parts(
                "alternative",
                ("text/plain", "Your mail program does not show HTML. View this message online."),
                ("text/html", "<p>The price rises to 12.40 EUR.</p>"),
            ),
            "The price rises to 12.40 EUR.",
        ),
        (
            parts("alternative", ("text/plain", "Hello."), ("text/html", f"<p>{'Hello, and more. ' * 9}</p>")),
            ("Hello, and more. " * 9).strip(),
        ),
        (
            parts("alternative", ("text/plain", "Said plainly."), ("text/html", "<p>Said <b>plainly</b>.</p>")),
            "Said plainly.",
        ),
        (
            parts(
                "mixed",
                ("text/plain", "See below."),
                ("message/rfc822", "From: c@example.org\r\nSubject: Offer\r\n\r\n40 EUR a piece."),
            ),
            "See below.\n\nForwarded: Offer, c@example.org\n\n40 EUR a piece.",
        ),
        (
            HEAD.replace(b"MIME", b"A broken line here\r\nMIME")
            + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
            + b"Gr=C3=B6=C3=9Fe",
            "Größe",
        ),
        (HEAD.decode().encode("utf-16") + "\r\nDie Größe.".encode("utf-16")[2:], "Die Größe."),
        (HEAD + b'Content-Type: text/plain; charset="cp-850"\r\n\r\nGr\x94\xe1e', "Größe"),
    ],
)
def test_the_text_of_a_mail(data: bytes, text: str) -> None:
    """All that it shows: pages rather than stubs of them, forwarded mails, and what follows a broken header."""
    assert read_one(data, "m.eml").text == text


def test_attachments_are_documents() -> None:
    """Each with its own title; the mail is named in their metadata. Pictures in the page are none."""
    message = mail()
    message.add_attachment(b"Part | Price", maintype="text", subtype="plain", filename="prices.txt")
    message.add_attachment(b"<p>Terms.</p>", maintype="text", subtype="html", filename="prices.txt")
    message.add_attachment(mail().as_bytes(), maintype="application", subtype="octet-stream", filename="old.eml")
    message.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="logo.png", disposition="inline")
    own, prices, terms, old = read(message.as_bytes(), "m.eml", ReadLimits())
    assert own.metadata["attachments"] == ["prices.txt", "prices.txt (2)", "old.eml"]
    assert (prices.key, prices.title, prices.text) == ("#/prices.txt", "prices", "Part | Price")
    assert (prices.metadata["mail"], prices.metadata["from"], prices.metadata["file"]) == (
        "Grüße",
        "Ann <ann@example.org>",
        "prices.txt",
    )
    assert (terms.key, old.title) == ("#/prices.txt (2)", "Grüße")


def test_what_a_page_shows_is_no_attachment() -> None:
    """Its pictures are left out; files with a content id of their own, or shown in line, are attachments."""
    message = EmailMessage()
    message.set_content('<p>Our logo: <img src="cid:logo@x"></p>', subtype="html")
    message.add_attachment(b"Prices.", maintype="text", subtype="plain", filename="prices.txt", cid="<f_1>")
    message.add_attachment(b"Terms.", maintype="application", subtype="x", filename="terms.txt", disposition="inline")
    message.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="logo.png", cid="<logo@x>")
    mail, *files = read(message.as_bytes(), "m.eml", ReadLimits())
    assert mail.metadata["attachments"] == ["prices.txt", "terms.txt"]
    assert [file.text for file in files] == ["Prices.", "Terms."]


def test_a_mailbox_is_a_document_per_mail() -> None:
    """With their own headers, and places as keys."""
    first, second = (
        f"From {sender}@example.org Wed Apr 24 10:05:02 2019\r\nSubject: {sender}\r\n\r\nThe text of {sender}.\r\n\r\n"
        for sender in ("ann", "bob")
    )
    documents = read((first + second).encode(), "all.mbox", ReadLimits())
    assert [(one.key, one.title, one.text) for one in documents] == [
        ("#/1", "ann", "The text of ann."),
        ("#/2", "bob", "The text of bob."),
    ]


def test_a_saved_page_is_read_as_a_page() -> None:
    """Without its MIME parts."""
    data = HEAD.replace(b"From: a", b"Snapshot-Content-Location: https://example.org/\r\nFrom: a") + (
        b'Content-Type: multipart/related; type="text/html"; boundary="B"\r\n\r\n--B\r\nContent-Type: text/html\r\n'
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n<p>40 l/min at 3=C2=A0b=\r\nar.</p>\r\n--B--\r\n"
    )
    document = read_one(data, "page.mhtml")
    assert (document.text, document.title) == ("40 l/min at 3 bar.", "Test")
    assert document.metadata == {"url": "https://example.org/"}
