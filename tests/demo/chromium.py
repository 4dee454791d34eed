"""
A headless Chromium, driven over the pipe of its DevTools protocol.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Page", "find_chromium", "open_chromium"]

# No test waits for anything so long, even on a busy machine.
PATIENCE = 40.0


def find_chromium() -> str | None:
    """
    Return where Chromium is, or Chrome.
    """
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


class Chromium:
    """
    The two ends of the pipe: messages are JSON, and end in NUL.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._rest = b""
        self._count = 0
        #: What the browser has reported, to be looked through by whoever it concerns.
        self.reports: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """
        Return the result of a method of the protocol.
        """
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read(method)).get("id") != self._count:
            self.reports.append(answer)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self, method: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            assert ready, f"Chromium did not answer {method} in {PATIENCE} s"
            data = os.read(self._answers, 65536)
            assert data, f"Chromium ended during {method}"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def open(self, url: str) -> "Page":
        """
        Return a new page that shows a URL.
        """
        target = self.call("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        for domain in ("Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        begun = len(self.reports)
        page.call("Page.navigate", url=url)
        while not any(
            report["method"] == "Page.loadEventFired" and report.get("sessionId") == session
            for report in self.reports[begun:]
        ):
            self.reports.append(self._read("Page.navigate"))
        return page


class Page:
    """
    One page of the browser.
    """

    def __init__(self, chromium: Chromium, target: str, session: str) -> None:
        self._chromium = chromium
        self._target = target
        self._session = session

    def close(self) -> None:
        """
        Close it.
        """
        self._chromium.call("Target.closeTarget", targetId=self._target)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """
        Return the result of a method of the protocol.
        """
        return self._chromium.call(method, self._session, **params)

    def evaluate(self, expression: str) -> Any:
        """
        Return the value of a JavaScript expression, which may be a promise.
        """
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> Any:
        """
        Return the value of a JavaScript expression as soon as it is true.
        """
        milliseconds = 1000 * PATIENCE / 2
        return self.evaluate(
            f"""new Promise((resolve, reject) => {{
                const look = () => {{
                    const value = {condition};
                    if (value) resolve(value);
                    else if (performance.now() > end) reject(new Error(document.body.innerText));
                    else setTimeout(look, 20);
                }};
                const end = performance.now() + {milliseconds};
                look();
            }})"""
        )

    def text(self, selector: str) -> str:
        """
        Return the text of the first element that a selector finds.
        """
        text: str = self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")
        return text

    def click(self, selector: str) -> None:
        """
        Click on the first element that a selector finds.
        """
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def resize(self, width: int, height: int) -> None:
        """
        Lay the page out anew.
        """
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def prefer(self, scheme: str) -> None:
        """
        Prefer ``light`` or ``dark``, as a person does in the system's settings.
        """
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """
        Write what is to be seen, or the whole page, as PNG.
        """
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    @property
    def problems(self) -> list[str]:
        """
        What a developer would see in red in the console.
        """
        found = []
        for report in self._chromium.reports:
            if report.get("sessionId") != self._session:
                continue
            match report:
                case {
                    "method": "Runtime.exceptionThrown",
                    "params": {"exceptionDetails": details},
                }:
                    found.append(str(details))
                case {
                    "method": "Log.entryAdded",
                    "params": {"entry": {"level": "error"} as entry},
                }:
                    found.append(f"{entry['source']}: {entry['text']}")
        return found


# The protocol wants the ends of the pipes to be 3 and 4. They are copied out of the way
# first, since each may have the number that the other is to get.
_PLACE = """
import fcntl, os, sys
spare = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
for fd, place in zip(spare, (3, 4)):
    os.dup2(fd, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


@contextmanager
def open_chromium(path: str, profile: Path) -> Iterator[Chromium]:
    """
    Start Chromium, and end it in the end.
    """
    to_child, commands = os.pipe()
    answers, from_child = os.pipe()

    process = subprocess.Popen(
        [
            *(sys.executable, "-I", "-c", _PLACE, str(to_child), str(from_child)),
            path,
            "--headless",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            # As root, in a container, it has no other choice.
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(to_child, from_child),
    )
    os.close(to_child)
    os.close(from_child)
    try:
        chromium = Chromium(commands, answers)
        yield chromium
        chromium.call("Browser.close")
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(commands)
        os.close(answers)
