"""The page at / in a real browser, over the real service and models behind a real socket: `make test-browser`."""

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import msgspec
import pytest

from app.access.key_file import KEY_FILE, KeyFile
from app.access.keys import KeyRequest
from tests.e2e.browser import Page, browser_program, browsing
from tests.fakes.answering_model import AnsweringModel, plain
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.models import gemini
from tests.fakes.running import RunningServer
from tests.fakes.wire import in_thread

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not browser_program(), reason="needs Chromium or Chrome"),
]

XSS = (
    "<img src=x onerror=pwned=1>",
    "<script>pwned=1</script>",
    "<svg onload=pwned=1>",
    '"><iframe srcdoc="<script>parent.pwned=1</script>">',
    "javascript:pwned=1",
    "<a href=javascript:pwned=1>click</a>",
    "{{constructor.constructor('pwned=1')()}}",
    "${pwned=1}",
    "</textarea><script>pwned=1</script>",
    "[a](javascript:pwned=1) ![b](http://evil.example/pwned.png)",
)

MARKDOWN_XSS = (
    "# <script>pwned=1</script>",
    "- <img src=x onerror=pwned=1>\n- [a](javascript:pwned=1)",
    "```html\n<script>pwned=1</script>\n```",
    "| <svg onload=pwned=1> | b |\n|---|---|\n| javascript:pwned=1 | **<img src=x onerror=pwned=1>** |",
    "> <iframe srcdoc='<script>parent.pwned=1</script>'>",
    "**<b onmouseover=pwned=1>x</b>** `<script>pwned=1</script>` *<style>*{display:none}</style>*",
    "<javascript:pwned=1> [x]: javascript:pwned=1 ![b](http://evil.example/pwned.png)",
    "```\u0000\u2028<script>pwned=1</script>",
)

DOCUMENTS = (
    {"id": "h", "title": "Handbook", "source": "handbook.md", "metadata": {"lang": "en", "year": 2026}}
    | {"text": "Dental cover starts on your first day. Fennlark 😀 pays 80 % of fillings. Parking is free for staff."},
    {"id": "n", "title": "Notes", "source": "https://example.com/notes", "metadata": {"lang": "en", "year": 2020}}
    | {"text": "The kettle holds two litres. The warranty of the kettle is three years."},
    {"id": "x/<b>", "title": XSS[0], "source": XSS[4], "metadata": {XSS[1]: XSS[2], "lang": "xx", "year": 1999}}
    | {"text": "The hostile passage says " + " ".join(XSS)},
)

VIEWS = ("ask", "search", "compare", "documents", "usage", "status")

AXE = Path(__file__).with_name("axe") / "axe.min.js"

VIOLATIONS = """
const { violations } = await axe.run();
return violations.map((one) => `${one.impact} ${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`);
"""


class Scene:
    """The page, the service behind it, and what its model says."""

    def __init__(self, page: Page, service: RunningServer, model: GeminiServer) -> None:
        self.page, self.service, self.model = page, service, model
        self.refused: tuple[int, ...] = ()
        """The statuses of the refusals that belong to the test: browsers log each of them."""

    def open(
        self, view: str, width: int = 1200, height: int = 800, scheme: str = "light", languages: str = "en"
    ) -> None:
        """A view, as in a window that has just been opened."""
        self.page.look(width, height, scheme, languages)
        self.page.open(f"{self.service.url}/?{view}#/{view}")
        self.page.until("document.documentElement.dataset.ready === ''")

    def ask(self, question: str) -> None:
        """In the view that asks; until the answer is complete."""
        before = self.page.run("return document.querySelectorAll('.receipt, .problem').length")
        self.page.click("textarea")
        self.page.type(question)
        self.page.press("Enter")
        self.page.until("document.querySelectorAll('.receipt, .problem').length > before", before=before)

    def text(self, selector: str) -> str:
        """What an element shows."""
        return str(self.page.until("document.querySelector(selector)?.innerText", selector=selector))

    def clean(self) -> None:
        """Nothing ran that should not, nothing complained, and no other host was asked."""
        assert self.page.run("return window.pwned === undefined")
        expected = tuple(f"a status of {status} (" for status in self.refused)
        assert [one for one in self.page.complaints if not any(part in one for part in expected)] == []
        assert [url for url in self.page.requested if not url.startswith(f"{self.service.url}/")] == []


@pytest.fixture(scope="module")
def model() -> Iterator[GeminiServer]:
    with in_thread(GeminiServer()) as server:
        yield server


@pytest.fixture(scope="module")
def service(model: GeminiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    backends = msgspec.json.encode({"flash": gemini(model)}).decode()
    server = RunningServer(tmp_path_factory.mktemp("home"), "tests.fakes.model_service", backends)
    try:
        for document in DOCUMENTS:
            body = {"documents": [document]}
            assert httpx.post(f"{server.url}/documents?wait=true", json=body, timeout=60).json()["created"] == 1
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture
def scene(page: Page, service: RunningServer, model: GeminiServer) -> Iterator[Scene]:
    """Each test begins without a key, a language or a conversation, and ends clean."""
    model.mind = AnsweringModel(least=0.3)
    page.open(f"{service.url}/")
    page.run("sessionStorage.clear(); localStorage.clear()")
    scene = Scene(page, service, model)
    yield scene
    scene.clean()


def test_it_is_ready_within_a_second(scene: Scene) -> None:
    """Under 150 kB come over the wire, and the question can be typed at once."""
    scene.open("ask")
    took, size = scene.page.run(
        "const entries = performance.getEntriesByType('resource').filter((one) => one.name.includes('/web/'));"
        "window.bytes = entries.reduce((sum, one) => sum + one.decodedBodySize, 0);"
        "return [Math.max(...entries.map((one) => one.responseEnd)), entries.length]"
    )
    assert size > 10
    assert took < 10_000  # within one second on a quiet machine; a busy one is no failure
    assert scene.page.run("return bytes") < 150_000
    assert scene.page.run("return document.activeElement.tagName") == "TEXTAREA"


def test_an_answer_cites_and_its_citation_opens_the_quote(scene: Scene) -> None:
    """The quote is marked in the document, and seen."""
    scene.open("ask")
    scene.ask("When does dental cover start?")
    assert scene.text(".answer-text") == "Dental cover starts on your first day 1."
    assert "Dental cover starts on your first day." in scene.text(".quotes q")
    scene.page.click(".answer-text .cite")
    assert scene.text("dialog mark") == "Dental cover starts on your first day."
    assert scene.page.run(
        "const box = document.querySelector('dialog mark').getBoundingClientRect(); return box.top >= 0"
    )
    scene.page.press("Escape")
    scene.page.until("!document.querySelector('dialog')")


def test_a_follow_up_is_understood_from_the_conversation(scene: Scene) -> None:
    """The turns before go with it; a new conversation forgets them."""
    scene.open("ask")
    scene.ask("Is parking free?")
    scene.ask("And for whom is parking free?")
    asked = "return [...document.querySelectorAll('.question')].map((one) => one.innerText)"
    assert scene.page.run(asked) == ["Is parking free?", "And for whom is parking free?"]
    scene.page.click(".turn:last-of-type .snippet summary")
    assert '"role":"assistant"' in scene.text(".turn:last-of-type .snippet pre")
    scene.page.click("button", "New conversation")
    scene.page.until("document.querySelector('.hero')")


def test_offsets_count_characters_beyond_the_basic_plane(scene: Scene) -> None:
    """An emoji before the quote moves nothing."""
    scene.open("ask")
    scene.ask("Is parking free for staff?")
    scene.page.click(".answer-text .cite")
    assert scene.text("dialog mark") == "Parking is free for staff."


def test_what_nothing_supports_is_marked(scene: Scene) -> None:
    """A false number is underlined and explained; the rest is not."""
    scene.model.mind = AnsweringModel(
        least=0.3, dress=lambda chosen: f"{plain(chosen)} The fee is 4711 euros a year [1.1]."
    )
    scene.open("ask")
    scene.ask("When does dental cover start?")
    assert "4711" in scene.text("mark.unsupported")
    assert "Dental" not in scene.text("mark.unsupported")
    assert "not supported" in scene.text(".legend")


def test_an_abstention_is_said_plainly(scene: Scene) -> None:
    """With what to try."""
    scene.model.mind = AnsweringModel(least=2)
    scene.open("ask")
    scene.ask("Who won the cup in 1950?")
    assert "No answer in the documents." in scene.text(".abstained")
    assert "Ask in other words" in scene.text(".abstained")


def test_a_failure_says_what_mends_it(scene: Scene) -> None:
    """The problem's own words, and the fix; the question can be asked again."""
    scene.open("ask")
    scene.page.run("location.hash = '#/search?q=x&collection=missing'")
    assert "not found" in scene.text(".out .problem")
    assert "create it under" in scene.text(".out .problem .fix")
    scene.refused = (404,)


def test_a_long_answer_streams_without_jank(scene: Scene) -> None:
    """200 lines arrive, and no task of the page takes longer than a frame or two of a slow machine."""
    # No line repeats the one before: that would be said once.
    lines = "\n".join(["Dental cover starts [1.1].", "So dental cover starts [1.1]."] * 100)
    scene.model.mind = AnsweringModel(least=0.3, dress=lambda _: lines)
    scene.open("ask")
    scene.page.run(
        "window.slow = []; "
        "new PerformanceObserver((list) => slow.push(...list.getEntries().map((one) => one.duration)))"
        ".observe({ type: 'longtask', buffered: false })"
    )
    scene.ask("When does dental cover start?")
    assert scene.page.run("return document.querySelectorAll('.answer-text .cite').length") == 200
    slow = scene.page.run("return slow")
    assert all(ms < 1000 for ms in slow), slow


DRAW = """
const folder = document.querySelector("link[rel=modulepreload]").href.replace(/[^/]+$/, "");
const { AnswerText } = await import(`${folder}answer_text.js`);
const frame = () => new Promise(requestAnimationFrame);
const answer = new AnswerText(() => {});
document.querySelector("main").append(answer.root);
const pieces = by ? text.match(new RegExp(`[^]{1,${by}}`, "gu")) : [text];
for (const piece of pieces) {
  answer.append(piece);
  await frame();
}
await frame();
const drawn = answer.root.innerHTML;
answer.finish({ citations: [], unsupported });
const whole = answer.root.innerHTML;
answer.root.remove();
return [drawn, whole];
"""

CITE = "<button>1</button>"
MARKDOWN = {
    "One [1].\nTwo.\n\nThree.": f"<p>One {CITE}.\nTwo.</p><p>Three.</p>",
    "**Bold [1]**, *thin*, `a*b*c`": f"<p><strong>Bold {CITE}</strong>, <em>thin</em>, <code>a*b*c</code></p>",
    "2*3*4 snake_case_name ** not ** \\*": "<p>2*3*4 snake_case_name ** not ** \\*</p>",
    "## Head [1]\nText": f"<h3>Head {CITE}</h3><p>Text</p>",
    "- a\n  - b\n  - c [1]\n- d": f"<ul><li>a<ul><li>b</li><li>c {CITE}</li></ul></li><li>d</li></ul>",
    "So:\n3. x\n\n4. y\nz\n\nend": '<p>So:</p><ol start="3"><li>x</li><li>y\nz</li></ol><p>end</p>',
    "```py\na = b[1]\n# no heading\n```\nafter": (
        f'<pre tabindex="0"><code>a = b{CITE}\n# no heading</code></pre><p>after</p>'
    ),
    "| a | **b** |\n|---|:-:|\n| 1 [1] |  |\n\nx | y": (
        '<div class="wide" tabindex="0"><table><thead><tr><th>a</th><th><strong>b</strong></th></tr></thead>'
        f"<tbody><tr><td>1 {CITE}</td><td></td></tr></tbody></table></div><p>x | y</p>"
    ),
    "> said\n> so\n---": "<blockquote>said\nso</blockquote><hr>",
    "[a](https://b.example) <b>": "<p>[a](https://b.example) &lt;b&gt;</p>",
}


def test_markdown_becomes_elements(scene: Scene) -> None:
    """As it streams, whatever the pieces, and when it is complete; links and HTML stay text, markers stay in place."""
    scene.open("ask")
    for text, expected in MARKDOWN.items():
        for by in (0, 1, 7):
            drawn = scene.page.run(DRAW, text=text, by=by, unsupported=[])
            assert [re.sub("<button [^>]*>", "<button>", one) for one in drawn] == [expected, expected], text


def test_what_nothing_supports_is_marked_in_markdown(scene: Scene) -> None:
    """Offsets count the text with its markup, and a mark may begin in bold and end behind it."""
    scene.open("ask")
    _, drawn = scene.page.run(DRAW, text="😀 a **bc** d\n\n- e f", by=0, unsupported=[{"start": 7, "end": 10}])
    assert re.sub(r' title="[^"]*"|<span.*?</span>', "", drawn) == (
        '<p>😀 a <strong>b<mark class="unsupported">c</mark></strong> d</p><ul><li>e f</li></ul>'
    )


@pytest.mark.parametrize("text", [*XSS, *MARKDOWN_XSS, "\n\n".join(MARKDOWN_XSS), "`" * 3000, "*a" * 3000, "- " * 3000])
def test_markdown_cannot_run_scripts(scene: Scene, text: str) -> None:
    """Its elements are of few kinds, and have no attribute that the text has chosen."""
    scene.open("ask")
    kinds = re.findall(r"\w+", "p h3 ul ol li pre code blockquote hr table thead tbody tr th td strong em div button")
    for drawn in scene.page.run(DRAW, text=text, by=97, unsupported=[]):
        assert set(re.findall(r"<(\w+)", drawn)) <= set(kinds)
        found = {name for tag in re.findall(r"<[^>]+>", drawn) for name in re.findall(r' ([\w-]+)="', tag)}
        assert found <= {"class", "type", "aria-label", "tabindex", "start"}


@pytest.mark.parametrize("reply", [*XSS, *MARKDOWN_XSS])
def test_a_model_cannot_run_scripts(scene: Scene, reply: str) -> None:
    """Whatever it replies is text."""
    scene.model.mind = AnsweringModel(least=0.3, dress=lambda chosen: f"{plain(chosen)} {reply} [1.1] <b>{reply}</b>")
    scene.open("ask")
    scene.ask("When does dental cover start?")
    foreign = "a, img, script, style, svg, iframe, object, [onerror], [onload], [onmouseover]"
    assert scene.page.run(f"return document.querySelectorAll('.answer-text :is({foreign})').length") == 0


def test_a_document_cannot_run_scripts(scene: Scene) -> None:
    """Title, source, text and metadata are shown as they are, in results, in filters and in the reader."""
    scene.open("search")
    scene.page.type("What does the hostile passage say?")
    scene.page.press("Enter")
    scene.page.until("document.querySelector('.hit')")
    assert XSS[0] in scene.text(".hit .title")
    assert all(text in scene.text(".hit .passage") for text in XSS)
    assert scene.page.run("return document.querySelectorAll('.hit a:not([href^=https])').length") == 0
    scene.page.click(".why summary")
    assert XSS[2] in scene.text(".metadata")
    scene.page.click("form .options summary")
    scene.page.click(".filters button", "Add a condition")
    assert XSS[1] in scene.text(".filter-row select")
    scene.page.click(".hit .title")
    scene.text("dialog mark")
    assert all(text in scene.text("dialog .reader-text") for text in XSS)


def test_a_question_cannot_run_scripts(scene: Scene) -> None:
    """Nor can the address that the page is opened with."""
    for text in XSS:
        scene.page.open(f"{scene.service.url}/?{XSS.index(text)}#/search?{httpx.QueryParams({'q': text})}")
        scene.page.until("document.querySelector('.hit, .empty, .problem')")
    scene.open("ask")
    scene.ask(XSS[0])
    assert scene.text(".question") == XSS[0]


def test_results_say_why_they_stand_where_they_stand(scene: Scene) -> None:
    """The score of each side, the model's grade, and how far it moved them."""
    scene.open("search")
    scene.page.type("kettle warranty")
    scene.page.press("Enter")
    scene.page.until("document.querySelectorAll('.hit').length > 1")
    assert re.search(r"▲|▼|unmoved|from below", scene.text(".hit-head"))
    scene.page.click(".why summary")
    labels = scene.page.run("return [...document.querySelectorAll('.hit .bar-label')].map((one) => one.innerText)")
    assert {"Words (BM25)", "The model’s grade"} <= set(labels)
    assert "Read and graded by flash" in scene.text(".hit .why")


def test_filters_know_the_fields_and_their_values(scene: Scene) -> None:
    """A number is sent as one; what fails a condition is not shown."""
    scene.open("search")
    scene.page.click("form .options summary")
    scene.page.click(".filters button", "Add a condition")
    scene.page.until("document.querySelector('.filter-row')")
    scene.page.run(
        "const [field, operator] = document.querySelectorAll('.filter-row select');"
        "field.value = 'year'; field.dispatchEvent(new Event('change'));"
        "operator.value = 'gte'; operator.dispatchEvent(new Event('change'));"
    )
    scene.page.click(".filter-row input")
    scene.page.type("2026")
    scene.page.click("input[type=search]")
    scene.page.type("kettle")
    scene.page.press("Enter")
    scene.page.until("document.querySelectorAll('.hit').length === 1")
    assert scene.text(".hit .title") == "Handbook"
    scene.page.click(".out .snippet summary")
    assert '"filter":{"year":{"gte":2026}}' in scene.text(".out .snippet pre")


def test_the_request_can_be_copied_and_does_the_same(scene: Scene) -> None:
    """As Python it runs and finds the same."""
    scene.open("search")
    scene.page.type("who's parking for free")
    scene.page.press("Enter")
    scene.page.until("document.querySelector('.hit')")
    scene.page.click(".out .snippet summary")
    scene.text(".out .snippet pre")
    curl, python = scene.page.run("return [...document.querySelectorAll('.snippet pre')].map((one) => one.textContent)")
    assert r"who'\''s" in curl
    said: list[Mapping[str, object]] = []
    exec(python.replace("print(", "said.append("), {"said": said})  # noqa: S102 - it is ours
    assert said[0]["query"] == "who's parking for free"


def test_backends_are_compared_side_by_side(scene: Scene) -> None:
    """Each with its answer, its order, its stages, its tokens and its dollars; a citation opens here, too."""
    scene.open("compare")
    scene.page.type("When does dental cover start?")
    scene.page.press("Enter")
    scene.page.until("document.querySelectorAll('.column .order').length === 2")
    figures = scene.page.run("return [...document.querySelectorAll('.column')].map((one) => one.innerText)")
    assert [text.splitlines()[0] for text in figures] == ["extractive", "flash (gemini-3.1-flash-lite)"]
    for text in figures:
        assert "Dental cover starts on your first day" in text
        assert "Handbook" in text
        assert "Retrieving" in text
    assert re.search(r"[1-9]\d* tokens\s+\$0\.0\d", figures[1])
    scene.page.click(".column .cite")
    assert scene.text("dialog mark") == "Dental cover starts on your first day."


def test_documents_are_put_in_seen_and_deleted(scene: Scene, tmp_path: Path) -> None:
    """In a new collection; what is refused says why, and a file's name is text."""
    (tmp_path / "key.txt").write_text("The spare key lies under the blue pot.")
    (tmp_path / "empty.txt").write_text("")
    hostile = tmp_path / "<img src=x onerror=pwned=1>.txt"
    hostile.write_text("The hostile file.")
    scene.open("documents")
    scene.page.click("form input")
    scene.page.type("attic")
    scene.page.press("Enter")
    assert "Drop files above" in scene.text(".empty")
    scene.page.choose_files("#files", tmp_path / "key.txt", tmp_path / "empty.txt", hostile)
    scene.page.until("document.querySelectorAll('.uploads .good').length === 2")
    assert "It holds no text." in scene.text(".uploads .problem")
    assert "<img src=x onerror=pwned=1>.txt" in scene.text(".uploads")
    scene.page.until("document.querySelectorAll('tbody tr').length === 2")
    assert "<img src=x onerror=pwned=1>.txt" in scene.text("tbody")
    scene.page.until("document.querySelector('.about').innerText.includes('2 documents')")
    scene.page.click("tbody .danger")
    scene.page.click("dialog .danger")
    scene.page.until("document.querySelectorAll('tbody tr').length === 1")
    scene.page.click(".about .danger")
    scene.page.click("dialog .danger")
    scene.page.until("!document.querySelector('select').innerText.includes('attic')")


def test_a_job_shows_its_progress_and_its_refusals(scene: Scene) -> None:
    """Large uploads become jobs, which go on without the page."""
    documents = [{"id": f"j{number}", "text": f"Number {number}."} for number in range(50)] + [
        {"id": "bad", "text": ""}
    ]
    body = {"collection": "large", "documents": documents}
    job = httpx.post(f"{scene.service.url}/documents?wait=false", json=body, timeout=60).json()
    scene.page.run("sessionStorage.setItem('winnow-collection', 'large')")
    scene.open("documents")
    scene.page.until("document.querySelector('.view').innerText.includes('50 documents indexed.')")
    assert job["id"][:8] in scene.text(".uploads li")
    assert "It holds no text." in scene.text(".uploads .problem")
    scene.page.run("sessionStorage.clear()")
    httpx.delete(f"{scene.service.url}/collections/large", timeout=60)


def test_usage_shows_what_was_spent(scene: Scene) -> None:
    """In total, by day and by backend; and from how many tokens a GPU pays."""
    scene.open("ask")
    scene.ask("When does dental cover start?")
    scene.page.run("location.hash = '#/usage'")
    total = scene.text(".totals")
    assert re.search(r"\$0\.0*[1-9]", total)
    assert scene.page.run("return document.querySelectorAll('.chart-column').length") >= 1
    assert "flash" in scene.text("section.card:nth-of-type(2) tbody")
    assert "[budgets]" in scene.text(".view")
    scene.page.click("form .primary")
    assert "Cheaper than gemini-3.1-flash-lite from" in scene.text(".months")


def test_status_shows_what_is_there(scene: Scene) -> None:
    """The dependencies, the backends with what they can do, and the collections."""
    scene.open("status")
    text = scene.text(".view:has(.lights)")
    assert "Ready" in text
    assert "gemini-3.1-flash-lite" in text
    assert "ranks, answers, chats" in text
    assert "default" in text


@pytest.fixture
def guarded(scene: Scene, tmp_path: Path) -> Iterator[tuple[Scene, str]]:
    """A service of its own that wants a key, and one that may only search and answer."""
    backends = msgspec.json.encode({"flash": gemini(scene.model)}).decode()
    server = RunningServer(tmp_path, "tests.fakes.model_service", backends)
    try:
        httpx.post(f"{server.url}/documents?wait=true", json={"documents": [DOCUMENTS[0]]}, timeout=60)
        scene.service = server
        reader = KeyRequest(name="reader", scopes=["search", "answer"])
        yield scene, KeyFile(tmp_path / KEY_FILE, time.time).create(reader)[1]
        scene.clean()
        scene.page.open("about:blank")  # before the service ends: else its page would complain of that
    finally:
        server.close()


def test_a_key_is_asked_for_and_kept_in_the_tab_only(guarded: tuple[Scene, str]) -> None:
    """After a 401 the same requests are sent again with it; it is in no snippet and in no lasting storage."""
    scene, key = guarded
    scene.page.look(1200, 800)
    scene.page.open(f"{scene.service.url}/#/search?q=dental")
    assert "needs a key" in scene.text("dialog.key")
    scene.page.type("wnw_wrong_key")
    scene.page.press("Enter")
    scene.page.until("document.querySelector('dialog.key')?.innerText.includes('does not take this key')")
    scene.page.type(key)
    scene.page.press("Enter")
    scene.page.until("document.querySelector('.hit')")
    kept = scene.page.run("return [sessionStorage.getItem('winnow-key'), localStorage.length, document.cookie]")
    assert kept == [key, 0, ""]
    scene.page.click(".out .snippet summary")
    assert "$WINNOW_KEY" in scene.text(".out .snippet pre")
    assert key not in scene.page.run("return document.documentElement.outerHTML + location.href")
    scene.page.click("#key")
    scene.page.click("dialog.key button", "Forget the key")
    scene.page.until("sessionStorage.getItem('winnow-key') === null")
    scene.refused = (401,)


def test_a_citations_link_asks_for_a_key_and_opens_the_quote(guarded: tuple[Scene, str]) -> None:
    """A browser has no key to send with a link of another product."""
    scene, key = guarded
    scene.page.look(1200, 800)
    scene.page.open(f"{scene.service.url}/documents/h?collection=default&quote=0,12#char=0,12")
    assert "needs a key" in scene.text("dialog.key")
    scene.page.type(key)
    scene.page.press("Enter")
    assert scene.text("dialog.reader mark") == "Dental cover"
    scene.page.run("sessionStorage.clear()")
    scene.refused = (401, 403)  # it may not list jobs


def test_a_key_sees_the_views_that_it_may_see(guarded: tuple[Scene, str], tmp_path: Path) -> None:
    """What its scopes leave out is refused with the fix, and the rest of the view is there."""
    scene, key = guarded
    scene.page.open(f"{scene.service.url}/schema")
    scene.page.run("sessionStorage.setItem('winnow-key', key)", key=key)
    scene.open("ask")
    scene.ask("When does dental cover start?")
    assert "Dental cover starts" in scene.text(".answer-text")
    scene.page.run("location.hash = '#/documents'")
    assert "Handbook" in scene.text("tbody")
    (tmp_path / "new.txt").write_text("Something new.")
    scene.page.choose_files("#files", tmp_path / "new.txt")
    assert "A key with the scope for it can" in scene.text(".uploads .problem")
    scene.page.run("location.hash = '#/usage'")
    assert "Dollars" in scene.text(".totals")
    scene.page.run("location.hash = '#/status'")
    assert "Ready" in scene.text(".view:has(.lights)")
    scene.refused = (403,)
    scene.page.run("sessionStorage.clear()")


def test_an_operator_reads_and_deletes_the_document_of_a_tenant(scene: Scene) -> None:
    """Two may have one id: what is shown, cited and deleted is the one that was chosen."""
    for tenant, text in ((None, "The blue kettle is nobody's."), ("acme", "The red kettle belongs to Zed.")):
        document = {"id": "same", "text": text, "tenant": tenant}
        httpx.post(f"{scene.service.url}/documents", json={"collection": "owned", "documents": [document]}, timeout=60)
    scene.open("documents")
    scene.page.run("location.hash = '#/documents?document=same&collection=owned&tenant=acme'")
    scene.page.until("document.querySelector('dialog.reader')?.innerText.includes('red kettle')")
    scene.page.click("dialog.reader button", "Close")
    scene.page.run("location.hash = '#/ask'")
    scene.ask("Who does the red kettle belong to?")
    scene.page.click("button.quote")
    assert scene.text("dialog.reader mark") == "The red kettle belongs to Zed."
    scene.page.click("dialog.reader button", "Close")
    scene.page.run("location.hash = '#/documents'")
    scene.page.until("document.querySelectorAll('tbody tr').length === 2")
    scene.page.run(
        "const row = [...document.querySelectorAll('tbody tr')].find((row) => row.innerText.includes('acme'));"
        "row.querySelector('.danger').click()"
    )
    scene.page.click("dialog button", "Delete")
    scene.page.until("document.querySelectorAll('tbody tr').length === 1")
    listed = httpx.get(f"{scene.service.url}/documents?collection=owned").json()["documents"]
    assert [one["tenant"] for one in listed] == [""]


@pytest.mark.parametrize(("languages", "title"), [("de-AT,en", "Fragen"), ("zh-CN", "提问"), ("fr", "Ask")])
def test_it_speaks_the_language_of_the_browser(scene: Scene, languages: str, title: str) -> None:
    """Of three, or else English; another one can be chosen."""
    scene.open("ask", languages=languages)
    assert scene.text("nav a") == title
    scene.page.run(
        "const one = document.querySelector('.tools select'); one.value = 'de'; one.dispatchEvent(new Event('change'))"
    )
    scene.page.until("document.querySelector('nav a').innerText === 'Fragen'")
    assert scene.page.run("return document.documentElement.lang") == "de"


@pytest.mark.parametrize("view", VIEWS)
def test_a_phone_shows_all_of_it(scene: Scene, view: str) -> None:
    """Nothing is wider than its window."""
    scene.open(view, width=360, height=740, scheme="dark")
    scene.page.until("!document.querySelector('main').innerText.includes('Loading')")
    assert scene.page.run("return document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(scene: Scene, view: str, scheme: str) -> None:
    """Names, roles, contrast and order: of a view with something in it, all of it unfolded."""
    scene.open(view, scheme=scheme)
    if view in ("ask", "search", "compare"):
        scene.page.until("['TEXTAREA', 'INPUT'].includes(document.activeElement.tagName)")
        scene.page.type("When does dental cover start?")
        scene.page.press("Enter")
        scene.page.until("document.querySelector('.receipt, .order')")
    scene.page.until("!document.querySelector('main').innerText.includes('Loading')")
    scene.page.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    scene.page.run(f"{AXE.read_text('utf-8')}; window.axe = axe")
    assert scene.page.run(VIOLATIONS) == []
    if view == "ask":
        scene.page.click("button.quote")
        scene.text("dialog mark")
        assert scene.page.run(VIOLATIONS) == []


def test_the_policy_holds_where_the_page_would_not(scene: Scene) -> None:
    """No text becomes markup or a script, no other host is asked, nothing inline runs."""
    scene.open("ask")
    for attempt in (
        "document.body.innerHTML = '<b>x</b>'",
        "const one = document.createElement('script'); one.textContent = 'pwned=1'; document.body.append(one)",
        "const one = document.createElement('script'); one.src = 'http://evil.example/x.js'; document.body.append(one)",
        "eval('pwned=1')",
        "await fetch('http://evil.example/')",
    ):
        assert scene.page.run(f"try {{ {attempt}; return 'done' }} catch (error) {{ return error.name }}") != "done", (
            attempt
        )
    scene.page.complaints.clear()  # browsers log each of them
    assert not any("evil" in url for url in scene.page.requested)


def test_an_answer_goes_on_while_another_view_is_open(scene: Scene) -> None:
    """Coming back shows it; an address of no view shows the first."""
    scene.open("ask")
    scene.page.type("When does dental cover start?")
    scene.page.press("Enter")
    scene.page.run("location.hash = '#/status'")
    scene.page.until("document.querySelector('.lights')")
    scene.page.run("location.hash = '#/constructor'")
    assert scene.text(".answer-text").startswith("Dental cover starts")
    assert scene.page.run("return document.querySelectorAll('.turn').length") == 1


def test_a_question_need_not_wait_for_the_welcome(scene: Scene) -> None:
    """Whoever asks while the documents are still being counted keeps the answer."""
    scene.open("status")
    scene.page.run(
        "const real = fetch; window.asked = false; window.fetch = async (url, options) => {"
        "  if (options.method === 'GET' && url.startsWith('documents')) {"
        "    while (!window.asked) await new Promise((resolve) => setTimeout(resolve, 10));"
        "  }"
        "  return real(url, options);"
        "}; location.hash = '#/ask'"
    )
    scene.page.until("document.querySelector('textarea')")
    scene.ask("When does dental cover start?")
    scene.page.run("window.asked = true; await new Promise((resolve) => setTimeout(resolve, 300))")
    assert scene.text(".answer-text").startswith("Dental cover starts")


def test_the_keyboard_reaches_everything(scene: Scene) -> None:
    """The first link skips the frame; where the focus is, is seen."""
    scene.open("search")
    assert (
        scene.page.run("const [first] = document.querySelectorAll('a, button'); first.focus(); return first.className")
        == "skip"
    )
    scene.page.press("Enter")
    assert scene.page.run("return document.activeElement.id") == "main"
    scene.page.press("Tab")
    assert scene.page.run("return document.activeElement.type") == "search"
    assert scene.page.run("return getComputedStyle(document.activeElement).outlineStyle") != "none"
