"""
The chat room of the examples, in two windows of a real browser.

Screenshots are written to the folder that the environment variable SCREENSHOTS names.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from chromium import Chromium, Page, find_chromium, open_chromium
from engines import Redis, programs
from port import Port

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not installed")

EXAMPLES = Path(__file__).parents[2] / "examples"
CONNECTED = "document.querySelector('#state').textContent === 'Connected'"
RECONNECTING = "document.querySelector('#state').textContent === 'Reconnecting'"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    assert CHROMIUM is not None
    with open_chromium(CHROMIUM, tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    path = Path(os.environ.get("SCREENSHOTS", tmp_path))
    path.mkdir(parents=True, exist_ok=True)
    return path


def enter(chromium: Chromium, port: Port) -> Page:
    page = chromium.open(f"http://127.0.0.1:{port.number}/")
    page.wait_for(CONNECTED)
    return page


def say(page: Page, name: str, text: str) -> None:
    """
    Say something, and see that it was sent.
    """
    page.evaluate(
        f"(() => {{ const form = document.forms[0]; form.elements.name.value = {name!r};"
        f" form.elements.text.value = {text!r}; form.requestSubmit(); }})()"
    )
    page.wait_for("document.forms[0].elements.text.value === ''")


def wait_for(page: Page, *texts: str) -> None:
    """
    Return when this is all that is to be seen, in this order.
    """
    shown = (
        "Array.from(document.querySelectorAll('li'), (li) => li.childNodes[1]?.data ?? 'reset')"
    )
    page.wait_for(f"JSON.stringify({shown}) === JSON.stringify({list(texts)!r})")


def test_on_redis_nobody_misses_a_message_over_a_restart(
    chromium: Chromium, screenshots: Path
) -> None:
    with (
        # Not tmp_path, which may be longer than the path of a socket may be.
        TemporaryDirectory() as folder,
        Redis(programs()[0], Path(folder)) as redis,
        Port() as port,
    ):

        def start() -> object:
            return port.start("06_chat.py", folder=EXAMPLES, environment={"BROKER": redis.url})

        server = start()
        ada, bob = enter(chromium, port), enter(chromium, port)
        say(ada, "Ada", "Hello, is <b>anybody</b> here?")
        say(bob, "Bob", "I am.")
        said = ["Hello, is <b>anybody</b> here?", "I am."]
        for page in (ada, bob):
            wait_for(page, *said)

        port.kill(server)  # type: ignore[arg-type]
        bob.wait_for(RECONNECTING)
        assert ada.evaluate("document.querySelectorAll('li').length") == 2
        # It is sent while nobody is there to take it, and waits in the backlog.
        ada.evaluate(
            "(() => { document.forms[0].elements.text.value = 'Still there?';"
            " document.forms[0].requestSubmit(); })()"
        )
        start()
        for page in (ada, bob):
            page.wait_for(CONNECTED)
            wait_for(page, *said, "Still there?")
        say(bob, "Bob", "Nothing was lost.")
        said += ["Still there?", "Nothing was lost."]
        for page in (ada, bob, enter(chromium, port)):
            wait_for(page, *said)

        for scheme in ("light", "dark"):
            ada.prefer(scheme)
            ada.resize(1000, 700)
            ada.screenshot(screenshots / f"chat-{scheme}.png")
        ada.resize(390, 844)
        ada.screenshot(screenshots / "chat-narrow.png")
        assert ada.evaluate("document.documentElement.scrollWidth") == 390
        for page in (ada, bob):
            page.close()


def test_in_memory_a_restart_is_told(chromium: Chromium, screenshots: Path) -> None:
    with Port() as port:
        server = port.start("06_chat.py", folder=EXAMPLES)
        ada, bob = enter(chromium, port), enter(chromium, port)
        say(ada, "Ada", "Hello")
        wait_for(bob, "Hello")
        port.kill(server)
        bob.wait_for(RECONNECTING)
        port.start("06_chat.py", folder=EXAMPLES)
        for page in (ada, bob):
            page.wait_for(CONNECTED)
            wait_for(page, "Hello", "reset")
        say(bob, "Bob", "Hello again")
        for page in (ada, bob):
            wait_for(page, "Hello", "reset", "Hello again")
        ada.resize(1000, 700)
        ada.screenshot(screenshots / "chat-reset.png")
