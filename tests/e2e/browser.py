"""A real browser without a window, driven over its DevTools protocol: what pages may do is decided by browsers."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60.0
"""For one answer of the browser, on a slow machine."""

ICON = "/favicon.ico"


def browser_program() -> str:
    """The path of a browser; "" if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), "")


_MIDDLE = """(() => {
  for (const element of document.querySelectorAll(selector)) {
    if (!element.textContent.includes(containing) || !element.checkVisibility()) continue;
    element.scrollIntoView({ block: "center", behavior: "instant" });
    const box = element.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
    const hit = document.elementFromPoint(x, y);
    if (element === hit || element.contains(hit)) return [x, y];
  }
})()"""


class Page:
    """One tab. `complaints` are the errors and warnings that its console showed, `requested` the URLs it asked for."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self._loaded = False
        self.complaints: list[str] = []
        self.requested: list[str] = []
        self._shown = ""
        self._left: set[str] = set()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Show a page, and wait until it is loaded."""
        self._loaded = False
        self._shown = url
        self._left.update(one for one in self.requested if one.endswith(ICON))
        self.complaints.clear()
        self.requested.clear()
        failed = self._call("Page.navigate", url=url).get("errorText")
        assert not failed, f"{url}: {failed}"
        self._wait()

    def follow(self, url: str) -> None:
        """Go there as by a link on the page that is shown."""
        self._loaded = False
        self.complaints.clear()
        self.run("setTimeout(() => location.assign(url))", url=url)
        self._wait()

    def run(self, script: str, **values: Any) -> Any:
        """What the body of an async function returns in the page, with `values` as its variables."""
        names = "".join(f"const {name} = {json.dumps(value)};" for name, value in values.items())
        function = f"(async () => {{ {names} {script} }})()"
        told = self._call(
            "Runtime.evaluate",
            expression=function,
            awaitPromise=True,
            returnByValue=True,
            allowUnsafeEvalBlockedByCSP=False,
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, condition: str, seconds: float = SECONDS / 2, **values: Any) -> Any:
        """The value of an expression in the page, once it is one that counts as true."""
        script = """
            const deadline = performance.now() + ms;
            for (;;) {
              const value = await (async () => (%s))();
              if (value) return value instanceof Node ? true : value;
              if (performance.now() > deadline) return null;
              await new Promise((resolve) => setTimeout(resolve, 20));
            }"""
        found = self.run(script % condition, ms=1000 * seconds, **values)
        assert found, f"{condition} never came true; the page shows:\n{self.run('return document.body.innerText')}"
        return found

    def click(self, selector: str, containing: str = "") -> None:
        """As a mouse does, in the middle of the first visible element of that kind, once it is there."""
        place = self.until(_MIDDLE, selector=selector, containing=containing)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self._call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """A key that writes nothing, such as Enter, Escape or Tab."""
        codes = {"Enter": 13, "Escape": 27, "Tab": 9}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **text)

    def choose_files(self, selector: str, *paths: Path) -> None:
        """For an input of files."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def look(self, width: int, height: int, scheme: str = "light", languages: str = "en") -> None:
        """As a window of that size, for who prefers that colour scheme and those languages."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        agent = self.run("return navigator.userAgent")
        self._call("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=languages)

    def photograph(self, path: Path) -> None:
        """What the window shows, as a PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def _wait(self) -> None:
        while not self._loaded:
            self._receive()

    def _call(self, method: str, **params: Any) -> Mapping[str, Any]:
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while (message := self._receive()).get("id") != self._number:
            pass
        assert "error" not in message, message
        result: Mapping[str, Any] = message["result"]
        return result

    def _receive(self) -> Mapping[str, Any]:
        message: Mapping[str, Any] = json.loads(self._connection.recv(timeout=SECONDS))
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self._note_request(message["params"]["request"]["url"], message["params"]["documentURL"])
            case "Log.entryAdded" if message["params"]["entry"]["level"] in ("error", "warning"):
                if message["params"]["entry"].get("url") not in self._left:
                    self.complaints.append(message["params"]["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(message["params"]))
        return message

    def _note_request(self, url: str, document: str) -> None:
        """A browser asks for the icon of a page, and is answered, after it was left, too."""
        if url.endswith(ICON) and not document.startswith(self._shown.partition("?")[0]):
            self._left.add(url)
        else:
            self._left.discard(url)
            self.requested.append(url)


@contextmanager
def browsing(profile: Path, *names: str) -> Iterator[Page]:
    """A browser that finds `names` on this machine, and nothing on any other."""
    rules = ", ".join((*(f"MAP {name} 127.0.0.1" for name in names), "MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1"))
    command = [
        browser_program(),
        "--headless",
        "--disable-gpu",
        "--no-first-run",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
    ]
    command += ["--remote-debugging-port=0", f"--host-resolver-rules={rules}", "about:blank"]
    if os.geteuid() == 0:
        command.insert(1, "--no-sandbox")  # it starts as root only so; it shows pages of these tests alone
    with (profile.parent / "browser.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with connect(_address(process, profile), max_size=None, open_timeout=SECONDS) as connection:
            yield Page(connection)
    finally:
        process.terminate()
        process.wait(timeout=SECONDS)


def _address(process: subprocess.Popen[bytes], profile: Path) -> str:
    """Of the first tab, once the browser has written down its port."""
    deadline = time.monotonic() + SECONDS
    told = profile / "DevToolsActivePort"
    while time.monotonic() < deadline and process.poll() is None:
        if told.exists() and len(lines := told.read_text().splitlines()) == 2:
            return _first_tab(f"ws://127.0.0.1:{lines[0]}{lines[1]}")
        time.sleep(0.05)
    raise AssertionError((profile.parent / "browser.log").read_text())


def _first_tab(browser: str) -> str:
    deadline = time.monotonic() + SECONDS
    with connect(browser, max_size=None, open_timeout=SECONDS) as connection:
        while time.monotonic() < deadline:
            connection.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
            targets = json.loads(connection.recv(timeout=SECONDS))["result"]["targetInfos"]
            for target in targets:
                if target["type"] == "page":
                    return f"{browser.partition('/devtools/')[0]}/devtools/page/{target['targetId']}"
            time.sleep(0.05)
    raise AssertionError("the browser opened no tab")
