"""
A chat room in a browser, which survives a restart.

::

    hypercorn examples/06_chat.py
    curl -N http://127.0.0.1:8000/events?lastEventId=earliest

Open http://127.0.0.1:8000/ in two windows, write, stop the server, start it again: nobody
misses a message. Each is a line of the file ``chat.jsonl`` (or of that in ``$CHAT``), and its
event ID is the number of the line. So a browser that was connected to the server of yesterday
can say what it has seen, and gets the rest.
"""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from asgi_sse import Request, event_stream
from asgi_sse.channels import Channel, Subscription

LONGEST = 4096

PAGE = """\
<!doctype html>
<meta charset="utf-8">
<title>Chat</title>
<style>
  body { font: 1rem/1.5 system-ui; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
  ol { list-style: none; padding: 0 }
  input { font: inherit; padding: .3rem }
  input[name=text] { width: 60% }
</style>
<h1>Chat <small id="state"></small></h1>
<ol id="messages" aria-live="polite"></ol>
<form>
  <input name="name" placeholder="Your name" required size="10">
  <input name="text" placeholder="Say something" required autocomplete="off">
</form>
<script>
  const list = document.getElementById("messages");
  const state = document.getElementById("state");
  // Only the first time: a browser that reconnects says itself what it has seen.
  const events = new EventSource("events?lastEventId=earliest");
  events.onopen = () => state.textContent = "";
  events.onerror = () => state.textContent = "(reconnecting)";
  events.onmessage = event => {
    const {name, text} = JSON.parse(event.data);
    const item = document.createElement("li");
    item.textContent = `${name}: ${text}`;
    list.append(item);
  };
  // The server cannot tell what is missing here, and sends all that it has.
  events.addEventListener("reset", () => list.replaceChildren());
  document.forms[0].onsubmit = async event => {
    event.preventDefault();
    const form = event.target;
    const said = {name: form.name.value, text: form.text.value};
    const answer = await fetch("messages", {
      method: "POST",
      headers: {"content-type": "application/json"},
      body: JSON.stringify(said),
    });
    if (answer.ok) form.text.value = "";
  };
</script>
"""


class Room:
    """
    What was said, in a file and in a channel.
    """

    def __init__(self, path: Path) -> None:
        self.channel = Channel(history=1000)
        self._file = path.open("a+", encoding="utf-8")
        self._file.seek(0)
        self._lines = 0
        for line in self._file:
            self._publish(line)

    def say(self, message: dict[str, str]) -> str:
        """
        Write a message down, and then send it.
        """
        line = json.dumps(message) + "\n"
        self._file.write(line)
        self._file.flush()
        return self._publish(line)

    def _publish(self, line: str) -> str:
        self._lines += 1
        return self.channel.publish_nowait(line.rstrip("\n"), id=self._lines)


@cache
def the_room() -> Room:
    return Room(Path(os.environ.get("CHAT", "chat.jsonl")))


@event_stream
def events(request: Request) -> Subscription:
    return the_room().channel.subscribe(request.last_event_id)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http" or scope["path"] == "/events":
        await events(scope, receive, send)
    elif (scope["method"], scope["path"]) == ("GET", "/"):
        await answer(send, 200, PAGE, "text/html; charset=utf-8")
    elif (scope["method"], scope["path"]) == ("POST", "/messages"):
        # Not from a form on another site: it cannot send this without asking first.
        if (b"content-type", b"application/json") not in scope["headers"]:
            await answer(send, 415, "The content type must be application/json.\n")
            return
        match parse(await read(receive)):
            case {"name": str(name), "text": str(text)} if name and text:
                event_id = the_room().say({"name": name, "text": text})
                await answer(send, 201, f"{event_id}\n")
            case _:
                await answer(send, 400, 'The body must be like {"name": "Ada", "text": "Hi"}.\n')
    else:
        await answer(send, 404, "Here are /, /events and /messages.\n")


async def read(receive: Any) -> bytes:
    """
    Return the body of a request, or the beginning of one that is too long.
    """
    body = b""
    while len(body) <= LONGEST:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return body


def parse(body: bytes) -> object:
    try:
        return json.loads(body) if len(body) <= LONGEST else None
    except (ValueError, RecursionError):
        return None


async def answer(
    send: Any, status: int, text: str, kind: str = "text/plain; charset=utf-8"
) -> None:
    headers = [(b"content-type", kind.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
