"""
What only a browser can tell: that its own rules for other origins, codings and reconnects are met.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chromium import Chromium, Page, find_chromium, open_chromium
from harness import SERVERS, Certificates, Server

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not installed")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    assert CHROMIUM is not None
    with open_chromium(CHROMIUM, tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def door(certificates: Certificates) -> Iterator[Server]:
    with Server(SERVERS["uvicorn-h11"], "served_door:app", certificates) as server:
        yield server


def events_of(page: Page, url: str, count: int, then: str = "", **options: Any) -> list[str]:
    """
    Return the data of so many events of an EventSource, or "error" when it has given up.
    """
    events: list[str] = page.evaluate(
        f"""new Promise((resolve) => {{
            const got = [];
            const source = new EventSource("{url}", {json.dumps(options)});
            const end = () => {{ source.close(); resolve(got); }};
            source.onmessage = (event) => {{
                got.push(event.data);
                {then}
                if (got.length === {count}) end();
            }};
            source.onerror = () => {{
                if (source.readyState === EventSource.CLOSED) {{ got.push("error"); end(); }}
            }};
        }})"""
    )
    return events


@pytest.mark.parametrize("coding", ["zstd", "gzip", "br"])
def test_compressed_events_arrive_one_by_one(
    coding: str, chromium: Chromium, door: Server
) -> None:
    """
    Chromium offers zstd and Brotli where it trusts the connection: over TLS, and to localhost.
    """
    page = chromium.open(f"http://localhost:{door.port}/")
    answer = page.evaluate(
        f"""fetch("/{coding}", {{method: "HEAD", headers: {{Accept: "text/event-stream"}}}})
            .then((answer) => answer.headers.get("content-encoding"))"""
    )

    assert answer == coding
    # The source waits until the page has said that the event before has arrived.
    then = 'fetch("/arrived", {method: "POST"});'
    assert events_of(page, f"/{coding}", 3, then) == ["0", "1", "2"]
    page.close()


@pytest.fixture
def other(door: Server) -> str:
    """
    A stream that is of the same site as its pages, but of another origin.
    """
    return f"http://api.x.localhost:{door.port}/origin"


def test_a_page_of_an_allowed_origin_reads_with_its_cookies(
    chromium: Chromium, door: Server, other: str
) -> None:
    page = chromium.open(f"http://page.x.localhost:{door.port}/")
    page.evaluate("document.cookie = 'user=alice; domain=x.localhost'")
    with_cookies = [json.loads(d) for d in events_of(page, other, 2, withCredentials=True)]
    [without] = [json.loads(data) for data in events_of(page, other, 1)]

    assert [asked["cookie"] for asked in with_cookies] == ["user=alice"] * 2
    assert without["cookie"] is None
    # It has come again by itself, without asking first whether it may.
    assert [asked["last-event-id"] for asked in with_cookies] == [None, "1"]
    assert page.problems == []
    page.close()


def test_a_page_of_an_allowed_origin_posts_with_headers_of_its_own(
    chromium: Chromium, door: Server, other: str
) -> None:
    page = chromium.open(f"http://page.x.localhost:{door.port}/")
    text = page.evaluate(
        f"""fetch("{other}", {{
            method: "POST",
            credentials: "include",
            headers: {{"X-Token": "secret", "Content-Type": "application/json"}},
            body: "[1]",
        }}).then((answer) => answer.text())"""
    )
    asked = json.loads(text.partition("data: ")[2].partition("\n")[0])

    assert (asked["method"], asked["body"], asked["x-token"]) == ("POST", "[1]", "secret")
    assert asked["origin"] == f"http://page.x.localhost:{door.port}"
    assert page.problems == []
    page.close()


def test_a_page_of_another_origin_reads_nothing(
    chromium: Chromium, door: Server, other: str
) -> None:
    page = chromium.open(f"http://evil.localhost:{door.port}/")
    posted = page.evaluate(
        f"""fetch("{other}", {{method: "POST", headers: {{"X-Token": "secret"}}}})
            .then((answer) => answer.text(), (error) => error.message)"""
    )

    assert events_of(page, other, 1) == ["error"]
    assert posted == "Failed to fetch"
    page.close()


def test_an_event_source_that_is_one_too_many_comes_again(
    chromium: Chromium, door: Server
) -> None:
    page = chromium.open(f"http://localhost:{door.port}/")
    page.evaluate(
        """(() => {
            window.tries = 0;
            window.first = new EventSource("/limited");
            first.onmessage = () => {
                window.second = new EventSource("/limited");
                second.onopen = () => { if (++tries === 2) first.close(); };
                second.onmessage = () => { window.got = true; };
            };
        })()"""
    )
    page.wait_for("window.got")

    assert page.evaluate("tries") >= 3
    page.evaluate("second.close()")
    page.close()
