"""
The page in a real browser.

A screenshot of it is written to the folder that the environment variable SCREENSHOTS names.
"""

import json
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from chromium import Chromium, Page, find_chromium, open_chromium
from program import Program, start

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not installed")

OPEN = "document.documentElement.dataset.state === 'open'"
POINTS = "Number(document.querySelector('.plot')?.dataset.points) >= 2"

TARGET = r"""
    import anyio
    from asgi_sse import EventStream, Refused, ServerSentEvent

    async def mixed():
        yield ServerSentEvent("<b>bold</b>\nnext line", event="note", id="n-1")
        yield ServerSentEvent("no connection", event="error")
        yield {"deep": {"er_bytes_per_s": [1500, 0]}, "price": 1.5}
        yield ServerSentEvent.json({"price": 3}, event="trade", id="<i>")
        yield ServerSentEvent.json({"price": 4}, event="trade")
        await anyio.sleep_forever()

    async def count(request):
        n = int(request.last_event_id or 0)
        while True:
            n += 1
            yield ServerSentEvent.json({"count": n}, id=n)
            await anyio.sleep(0.05)

    async def many():
        for n in range(1000):
            yield {f"field {n % 100}": n}
        await anyio.sleep_forever()

    async def three(request):
        for n in range(1, 4):
            yield ServerSentEvent(str(n), id=n)

    finishing = EventStream(three, end="stop", retry=50)
    seen = []

    async def noted(scope, receive, send):
        if scope.get("query_string") == b"seen":
            await EventStream([seen])(scope, receive, send)
            return
        if scope["type"] == "http":
            seen.append(dict(scope["headers"]).get(b"last-event-id", b"").decode())
        await finishing(scope, receive, send)

    async def once(request):
        asked = request.query.get("lastEventId")
        if request.last_event_id is not None and asked is None:
            raise Refused(204)
        yield ServerSentEvent(f"lastEventId={asked} a={request.query['a']}", id="first")
        if asked is not None:
            await anyio.sleep_forever()
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    assert CHROMIUM is not None
    with open_chromium(CHROMIUM, tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "served.py").write_text(textwrap.dedent(TARGET))
    return tmp_path


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    path = Path(os.environ.get("SCREENSHOTS", tmp_path))
    path.mkdir(parents=True, exist_ok=True)
    return path


def ids(page: Page) -> list[str]:
    """
    Return the event IDs of the list, the oldest first.
    """
    found: list[str] = page.evaluate(
        "Array.from(document.querySelectorAll('li .id'), (id) => id.textContent).reverse()"
    )
    return found


def place_of(program: Program) -> str:
    url = httpx.URL(program.url)
    return f"{url.host}:{url.port}"


def test_vitals_are_plotted_and_go_on_when_the_server_is_back(
    chromium: Chromium, screenshots: Path
) -> None:
    with start("--retry", "100") as program:
        page = chromium.open(program.url)
        page.resize(1440, 900)
        page.wait_for(OPEN)
        page.wait_for(POINTS)
        before = ids(page)

        assert page.text("h1").startswith("Vitals of ")
        assert page.text("#state") == "Connected"
        assert page.text("#reconnects") == "0"
        assert page.text("#last-event-id") == before[-1]
        assert page.text(".plot .section") == "load"
        assert page.evaluate("document.querySelector('.plot .line').getAttribute('d')")[0] == "M"

        for scheme in ("light", "dark"):
            page.prefer(scheme)
            page.screenshot(screenshots / f"vitals-{scheme}.png")
        page.resize(390, 844)
        page.screenshot(screenshots / "vitals-narrow.png")

        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.problems == []
        program.process.kill()
        page.wait_for("document.documentElement.dataset.state === 'connecting'")

        assert page.text("#state").startswith("Reconnecting")

    with start("--retry", "100", "--bind", place_of(program)):
        page.wait_for(f"{OPEN} && document.querySelectorAll('li').length > {len(before)}")
        after = ids(page)

        assert page.text("#reconnects") == "1"
        assert after[: len(before)] == before
        assert after == sorted(set(after))
        page.close()


def test_stream_goes_on_where_it_was(chromium: Chromium, folder: Path) -> None:
    """
    The source starts after the last event ID, so this is the browser's to have sent.
    """
    seen = []
    with start("served:count", "--retry", "100", cwd=folder) as program:
        page = chromium.open(program.url)
        page.wait_for("Number(document.querySelector('#last-event-id').textContent) > 5")
    for n in (1, 2):
        with start("served:count", "--retry", "100", "--bind", place_of(program), cwd=folder):
            page.wait_for(f"{OPEN} && document.querySelector('#reconnects').textContent === '{n}'")
            last = int(page.text("#last-event-id"))
            page.wait_for(f"Number(document.querySelector('#last-event-id').textContent) > {last}")
            seen = ids(page)

            assert seen == [str(n) for n in range(1, len(seen) + 1)]
    page.close()


def test_events_of_every_type_are_shown_as_text(chromium: Chromium, folder: Path) -> None:
    with start("served:mixed", cwd=folder) as program:
        page = chromium.open(program.url)
        page.wait_for("document.querySelectorAll('li').length === 5")
        rows = page.evaluate(
            "Array.from(document.querySelectorAll('li'), (row) => ['.type', '.id', 'pre']"
            ".map((part) => row.querySelector(part).textContent))"
        )
        plots = page.evaluate(
            "Array.from(document.querySelectorAll('.plot'), (plot) => [plot.querySelector("
            "'.name').textContent, plot.querySelector('.value').textContent])"
        )

        assert rows == [
            ["trade", "<i>", '{"price":4}'],
            ["trade", "<i>", '{"price":3}'],
            ["message", "n-1", '{"deep":{"er_bytes_per_s":[1500,0]},"price":1.5}'],
            ["error", "n-1", "no connection"],
            ["note", "n-1", "<b>bold</b>\nnext line"],
        ]
        assert plots == [
            ["deep.er_bytes_per_s0", "1,500"],
            ["deep.er_bytes_per_s1", "0"],
            ["price", "1.5"],
            ["tradeprice", "4"],
        ]
        # An event of the type "error" is no error of the connection.
        assert page.text("#state") == "Connected"
        assert page.problems == []
        page.close()


def test_what_is_kept_of_a_long_stream_is_bounded(chromium: Chromium, folder: Path) -> None:
    with start("served:many", cwd=folder) as program:
        page = chromium.open(program.url)
        page.wait_for("document.querySelector('#events').textContent === '1,000'")
        page.wait_for("document.querySelectorAll('.plot').length > 0")

        assert page.evaluate("document.querySelectorAll('li').length") == 200
        assert page.evaluate("document.querySelectorAll('.plot').length") == 32
        assert page.text("#more") == "Fields without a plot, being past the first 32: 68"
        page.close()


def test_pause_holds_the_page_and_clear_empties_it(chromium: Chromium, folder: Path) -> None:
    with start("served:count", cwd=folder) as program:
        page = chromium.open(program.url)
        page.wait_for("document.querySelectorAll('li').length > 2")
        page.click("#pause")
        shown = ids(page)
        page.wait_for("/Resume · [0-9]+ new/.test(document.querySelector('#pause').textContent)")

        assert ids(page) == shown

        page.click("#pause")
        page.wait_for(f"document.querySelectorAll('li').length > {len(shown)}")

        assert ids(page)[: len(shown)] == shown

        page.click("#pause")
        page.click("#clear")

        assert ids(page) == []
        assert page.evaluate("document.querySelectorAll('.plot').length") == 0
        page.close()


def test_stream_that_was_refused_can_be_asked_for_again(chromium: Chromium, folder: Path) -> None:
    with start("served:once", "--retry", "1", cwd=folder) as program:
        page = chromium.open(f"{program.url}?a=1")
        # The source ends, the browser connects again, and is told not to: 204.
        page.wait_for("document.documentElement.dataset.state === 'closed'")

        assert page.text("#state") == "Closed by the server"
        assert page.text("#last-event-id") == "first"

        page.click("#again")
        page.wait_for("document.querySelectorAll('li').length === 2")

        assert page.text("li pre") == "lastEventId=first a=1"
        page.close()


def test_what_one_page_of_a_hub_publishes_the_other_shows(
    chromium: Chromium, screenshots: Path
) -> None:
    with start("channel", "news", "chat") as program, start("-") as elsewhere:
        httpx.post(f"{program.url}publish/news", content="from before")
        one, other = chromium.open(program.url), chromium.open(f"{program.url}?channel=chat")
        other.wait_for(OPEN)
        one.evaluate(
            "void Object.assign(document.querySelector('#publish').elements.data,"
            ' {value: \'{"said": "<b>hi</b>"}\'})'
        )
        one.evaluate("void (document.querySelector('#publish').elements.channel.value = 'chat')")
        one.evaluate("void (document.querySelector('#publish').elements.type.value = 'greeting')")
        one.click("#publish button")
        for page in (one, other):
            page.wait_for("document.querySelector('li pre')?.textContent.includes('said')")

        assert one.text("#publish output").startswith("Published in chat as ")
        assert one.evaluate(
            "Array.from(document.querySelectorAll('li'), (row) => [row.querySelector('.type')"
            ".dataset.channel, row.querySelector('pre').textContent])"
        ) == [["chat", '{"said": "<b>hi</b>"}'], ["news", "from before"]]
        assert other.text("#channels [aria-current]") == "chat"
        assert other.evaluate("document.querySelectorAll('li').length") == 1
        assert one.problems == other.problems == []

        one.resize(1280, 800)
        for scheme in ("light", "dark"):
            one.prefer(scheme)
            one.screenshot(screenshots / f"hub-{scheme}.png")
        one.resize(390, 844)
        one.screenshot(screenshots / "hub-narrow.png")

        assert one.evaluate("document.documentElement.scrollWidth") == 390

        # It is sent, and only its answer is kept from the stranger.
        stranger = chromium.open(f"{elsewhere.url}without-a-policy")
        address = f"'{program.url}publish/news'"
        assert (
            stranger.evaluate(
                f"fetch({address}, {{method: 'POST', mode: 'no-cors', body: 'evil'}})"
                ".then((answer) => answer.type)"
            )
            == "opaque"
        )
        httpx.post(f"{program.url}publish/news", content="at last")
        one.wait_for("document.querySelector('li pre').textContent === 'at last'")

        assert one.evaluate("document.querySelectorAll('li').length") == 3
        for page in (one, other, stranger):
            page.close()


def test_browser_of_a_stream_that_is_finished_comes_back_once(
    chromium: Chromium, folder: Path
) -> None:
    with start("served:noted", cwd=folder) as program:
        page = chromium.open(program.url)
        page.evaluate(
            """new Promise((resolve) => {
                window.got = [];
                window.stream = new EventSource("/events");
                stream.addEventListener("message", (event) => got.push(event.data));
                stream.addEventListener("error", () => {
                    got.push(stream.readyState);
                    if (stream.readyState === EventSource.CLOSED) resolve();
                });
            })"""
        )
        page.wait_for("document.documentElement.dataset.state === 'closed'")

        # From CONNECTING to CLOSED; and no empty event for the last ID.
        assert page.evaluate("got") == ["1", "2", "3", 0, 2]
        assert page.problems == []
        page.close()
        # The page has one of its own, which does the same.
        answer = httpx.get(f"{program.url}events?seen").text
        assert sorted(json.loads(answer.split("data: ")[1])) == [
            "",
            "",
            "asgi-sse-finished:3",
            "asgi-sse-finished:3",
        ]


def test_the_servers_own_numbers_are_shown(
    chromium: Chromium, folder: Path, screenshots: Path
) -> None:
    with start("served:many", cwd=folder) as program:
        page = chromium.open(program.url)
        page.wait_for(OPEN)
        page.click("#views a[href='#server']")
        page.wait_for("document.querySelector('#n-open').textContent === '1'")

        assert page.text("#views [aria-current]") == "Server"
        assert page.text("#reasons p") == "No stream has ended yet."
        assert page.evaluate("document.querySelector('main').offsetParent") is None

        with httpx.stream("GET", f"{program.url}events") as response:
            # Kept: without it the response would be closed.
            chunks = response.iter_text()
            next(chunks)
            page.wait_for("document.querySelector('#n-open').textContent === '2'")
        page.wait_for("document.querySelector('#reasons .count')?.textContent === '1'")
        page.wait_for("Number(document.querySelectorAll('#server .plot')[2]?.dataset.points) > 1")

        assert page.text("#reasons dt") == "clientthe client left"
        assert page.text("#reasons h2 span") == "1 in all"
        assert page.text("#n-opened") == "2"
        assert page.text("#n-sent").startswith("2,000 events · ")

        page.resize(1280, 800)
        for scheme in ("light", "dark"):
            page.prefer(scheme)
            page.screenshot(screenshots / f"server-{scheme}.png")
        page.resize(390, 844)
        page.screenshot(screenshots / "server-narrow.png", whole=True)

        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.problems == []
        page.click("#views a")
        page.wait_for("document.querySelector('main').offsetParent")
        page.close()
