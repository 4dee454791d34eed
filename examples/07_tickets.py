"""
A stream for members, in a browser: a ticket that is good for one request, instead of a token.

::

    hypercorn examples/07_tickets.py
    TICKET=$(curl -s -X POST http://127.0.0.1:8000/tickets -H "Authorization: Bearer alice")
    curl -N "http://127.0.0.1:8000/events?ticket=$TICKET"
    curl -i "http://127.0.0.1:8000/events?ticket=$TICKET"

An ``EventSource`` sets no headers, so a token would have to stand in the URL: there it gets into
the logs of every proxy, and is good for whoever reads them. Where the page and the stream are of
one site a cookie is the simplest (HttpOnly, Secure, SameSite); where they are not, this is. The
page sends its token as a header, once, and gets a ticket, which is worth nothing when it has been
used or is half a minute old. Open http://127.0.0.1:8000/ and stop the server: the browser's
reconnect comes with the ticket that was used, gets 401, and the page asks for another.

The tickets are in this process. With several, keep them where all can take one out: ``GETDEL`` of
Redis gives each to one of them.
"""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio

from asgi_sse import EventStream, Refused, Request, ServerSentEvent

PAGE = """\
<!doctype html>
<meta charset="utf-8">
<title>For members</title>
<p id="state"></p>
<ol id="news" aria-live="polite"></ol>
<script>
  const token = "alice"; // What the page has from signing in.
  let seen = "";
  async function open() {
    const headers = {Authorization: `Bearer ${token}`};
    const answer = await fetch("tickets", {method: "POST", headers}).catch(() => null);
    if (!answer?.ok) return again();
    const query = new URLSearchParams({ticket: await answer.text(), lastEventId: seen});
    const events = new EventSource(`events?${query}`);
    events.onopen = () => document.getElementById("state").textContent = "open";
    events.onmessage = event => {
      seen = event.lastEventId;
      const item = document.createElement("li");
      item.textContent = event.data;
      document.getElementById("news").append(item);
    };
    events.onerror = () => {
      document.getElementById("state").textContent = "reconnecting";
      // It has come back with a ticket that was used.
      if (events.readyState === EventSource.CLOSED) again();
    };
  }
  const again = () => setTimeout(open, 1000 + 2000 * Math.random());
  open();
</script>
"""


class Tickets:
    """
    What lets somebody in, once and soon.

    Args:
        lifetime: For how many seconds a ticket is good.

    """

    def __init__(self, lifetime: float = 30.0) -> None:
        self._lifetime = lifetime
        self._tickets: dict[str, tuple[str, float]] = {}

    def issue(self, user: str) -> str:
        """
        Return a ticket that nobody can guess.
        """
        now = time.monotonic()
        self._tickets = {each: kept for each, kept in self._tickets.items() if kept[1] > now}
        ticket = secrets.token_urlsafe(32)
        self._tickets[ticket] = user, now + self._lifetime
        return ticket

    def redeem(self, ticket: str) -> str | None:
        """
        Return whose ticket it is, or ``None`` if it is good no more.
        """
        user, until = self._tickets.pop(ticket, ("", 0.0))
        return user if until > time.monotonic() else None


tickets = Tickets()


async def let_in(request: Request) -> AsyncIterator[ServerSentEvent]:
    user = tickets.redeem(request.query.get("ticket", ""))
    if user is None:
        raise Refused(401, "This ticket is good no more.\n")
    request.meta["user"] = user
    return news(user, request.last_event_id or "")


async def news(user: str, seen: str) -> AsyncIterator[ServerSentEvent]:
    number = int(seen) if seen.isdecimal() and len(seen) < 10 else 0
    while True:
        number += 1
        yield ServerSentEvent(f"No. {number}, for {user} only", id=number)
        await anyio.sleep(1)


events = EventStream(let_in)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http" or scope["path"] == "/events":
        await events(scope, receive, send)
    elif (scope["method"], scope["path"]) == ("GET", "/"):
        await answer(send, 200, PAGE, "text/html; charset=utf-8")
    elif (scope["method"], scope["path"]) == ("POST", "/tickets"):
        headers = dict(scope["headers"])
        scheme, _, name = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        # A real one looks the token up.
        if scheme.lower() == "bearer" and name == "alice":
            await answer(send, 200, tickets.issue(name))
        else:
            await answer(send, 401, "Who are you?\n")
    else:
        await answer(send, 404, "Here are /, /events and /tickets.\n")


async def answer(
    send: Any, status: int, text: str, kind: str = "text/plain; charset=utf-8"
) -> None:
    headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
