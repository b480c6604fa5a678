"""A real browser: headless Chromium opens the page of `examples/chat`, and its user types.

It is driven by the DevTools protocol. Nothing here waits for a time: what a page is to show is waited for in
that page.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .test_examples import HUNG, loop, start  # noqa: F401

# the server and the browser are processes of their own
pytestmark = pytest.mark.engines("none")

OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-proxy-server", "--remote-debugging-port=0",
)  # fmt: skip

#: Resolved when the element has the text.
SHOWN = """
new Promise(done => {
  const lines = document.getElementById("lines");
  const look = () => { if (lines.textContent.includes(%s)) done(lines.textContent); };
  new MutationObserver(look).observe(lines, {childList: true, characterData: true, subtree: true});
  look();
})
"""


class Browser:
    """A Chromium, and the connection that drives it."""

    def __init__(self, program: str, folder: Path) -> None:
        websocket = pytest.importorskip("websocket", reason="websocket-client is not installed")
        self.process = subprocess.Popen(
            [program, *OPTIONS, f"--user-data-dir={folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._watchdog = threading.Timer(HUNG, self.process.kill)
        self._watchdog.start()
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if match := re.search(r"DevTools listening on (ws://\S+)", line):
                break
        else:
            self.stop()
            pytest.fail(f"{program} did not start: {''.join(said)}")
        # what else it says is for nobody, but must not fill the pipe
        self._drain = threading.Thread(target=self.process.stderr.read, daemon=True)
        self._drain.start()
        self._connection = websocket.create_connection(match[1], timeout=HUNG, suppress_origin=True)
        self._sent = 0

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; its result."""
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._connection.send(json.dumps(message))
        while True:
            answer = json.loads(self._connection.recv())
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def stop(self) -> None:
        if hasattr(self, "_connection"):
            self.ask("Browser.close")  # it ends its other processes
        else:
            self.process.kill()
        self.process.wait()
        self._watchdog.cancel()
        if hasattr(self, "_connection"):
            self._connection.close()
            self._drain.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


class Page:
    """A window of the browser."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser = browser
        target = browser.ask("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        self.session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        # both windows think that the user is here
        self.ask("Emulation.setFocusEmulationEnabled", enabled=True)
        # answered when the page has taken the place of the blank one
        assert "errorText" not in self.ask("Page.navigate", url=url)
        self._loaded()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.ask(method, self.session, **parameters)

    def run(self, script: str) -> Any:
        """Run a script in the page; what it comes to, a promise as well."""
        result = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def _loaded(self) -> None:
        """Wait for the page, and until its WebSocket is open."""
        self.run("new Promise(done => document.readyState === 'complete' ? done() : onload = done)")
        self.run("new Promise(done => socket.readyState === 1 ? done() : socket.onopen = done)")

    def type(self, text: str) -> None:
        """Type a line, as the user does."""
        self.run("document.querySelector('input').focus()")
        self.ask("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
            self.ask("Input.dispatchKeyEvent", type=kind, **key)

    def shows(self, text: str) -> str:
        """Wait until the text is among the lines of the chat; all of them."""
        return str(self.run(SHOWN % json.dumps(text)))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed")
    running = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield running
    running.stop()


def test_what_one_page_of_the_chat_says_the_other_one_shows(browser: Browser, start: Any) -> None:  # noqa: F811
    pytest.importorskip("wsproto", reason="wsproto is not installed")
    program = start("chat/chat.py", "0")
    url = f"http://127.0.0.1:{program.port()}/"
    alice, bob = Page(browser, url), Page(browser, url)
    alice.type("Alice")
    bob.shows("* Alice has come, which makes 2")
    bob.type("Bob")
    alice.type("Does it rain? <b>☂</b>")
    assert bob.shows("Alice: ") == (
        "* Alice has come, which makes 2\n* Bob has come, which makes 2\nAlice: Does it rain? <b>☂</b>\n"
    )
    bob.type("x" * 70_000)
    alice.shows("Bob: " + "x" * 70_000)
    bob.ask("Page.close")
    alice.shows("* Bob has left")
    program.process.kill()
    alice.shows("(the connection has ended)")
    alice.ask("Page.close")
