"""Headless Chromium through the DevTools protocol, with the standard library alone.

The protocol tells what a page requested, what it wrote to the console, and what the accessibility tree holds, which no
screenshot and no script within the page can.
"""

import base64
import collections
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path

TIMEOUT = 60.0
"""Seconds that one answer may take; a page of figures is laid out in less than one."""

# No service of the browser itself may reach the network while a test listens for requests.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--remote-debugging-pipe",
)


def find_browser() -> str | None:
    """The path of an installed Chromium, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One browser process; `with Browser(path, profile) as browser: ...`."""

    def __init__(self, executable: str, profile: Path) -> None:
        # Chromium reads commands from descriptor 3 and writes answers to 4; high numbers first, so that neither of the
        # two is overwritten before it is copied.
        (command_end, self._commands), (self._answers, answer_end) = os.pipe(), os.pipe()
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in (command_end, answer_end)]
        os.close(command_end)
        os.close(answer_end)
        actions = [(os.POSIX_SPAWN_DUP2, end, number) for end, number in zip(theirs, (3, 4), strict=True)]
        actions += [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
        arguments = [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = os.posix_spawn(executable, arguments, os.environ, file_actions=actions, setpgroup=0)
        for end in theirs:
            os.close(end)
        self._numbers = itertools.count(1)
        self._buffer = b""
        self.events: collections.deque[dict] = collections.deque()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_) -> None:
        # Its helpers are in its group and would outlive it.
        os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._commands)
        os.close(self._answers)

    def _receive(self, deadline: float) -> dict:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"Chromium did not answer within {TIMEOUT:g} s")
            chunk = os.read(self._answers, 1 << 20)
            if not chunk:
                raise ConnectionError("Chromium ended before it answered")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method: str, session: str | None = None, **parameters) -> dict:
        """The result of a command; events that arrive meanwhile are kept."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": parameters}
        if session is not None:
            command["sessionId"] = session
        data = json.dumps(command).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        deadline = time.monotonic() + TIMEOUT
        while (message := self._receive(deadline)).get("id") != number:
            self.events.append(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def wait_for(self, method: str, session: str) -> None:
        """Returns once the event has come."""
        deadline = time.monotonic() + TIMEOUT
        while not any(event.get("method") == method and event.get("sessionId") == session for event in self.events):
            self.events.append(self._receive(deadline))


class Page:
    """A file, opened at a size and in a colour scheme, and what happened while it was open."""

    def __init__(self, browser: Browser, file: Path, width: int, height: int, scheme: str = "light") -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.media(scheme=scheme)
        self.address = file.resolve().as_uri()
        self.call("Page.navigate", url=self.address)
        browser.wait_for("Page.loadEventFired", self._session)

    def call(self, method: str, **parameters) -> dict:
        """The result of a command to this page."""
        return self._browser.call(method, self._session, **parameters)

    def media(self, *, medium: str = "", scheme: str = "light") -> None:
        """Lays the page out for "print" or the screen, in a colour scheme."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=medium, features=features)

    def evaluate(self, expression: str):
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key, down and up."""
        for kind in ("keyDown", "keyUp"):
            shown = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **shown)

    def pdf(self) -> bytes:
        """What the printer gets."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])

    def _events(self, method: str) -> list[dict]:
        self.evaluate("0")  # whatever happened before is in by now
        return [
            event["params"]
            for event in self._browser.events
            if event.get("method") == method and event.get("sessionId") == self._session
        ]

    def requests(self) -> list[str]:
        """What the page asked for beyond itself and the data within it."""
        asked = [event["request"]["url"] for event in self._events("Network.requestWillBeSent")]
        return [address for address in asked if address != self.address and not address.startswith("data:")]

    def complaints(self) -> list[str]:
        """What reached the console: messages, uncaught errors, and refusals by the browser."""
        messages = [str(event["args"]) for event in self._events("Runtime.consoleAPICalled")]
        errors = [str(event["exceptionDetails"]) for event in self._events("Runtime.exceptionThrown")]
        entries = [str(event["entry"]["text"]) for event in self._events("Log.entryAdded")]
        return [*messages, *errors, *entries]
