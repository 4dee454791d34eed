"""
A chat room in a browser, which survives a restart.

::

    BROKER=redis://localhost hypercorn examples/06_chat.py
    curl -N http://127.0.0.1:8000/events?lastEventId=earliest

Open http://127.0.0.1:8000/ in two windows, write, stop the server, start it again: nobody
misses a message, because Redis (or NATS) has kept them, and a browser says itself what it has
seen. Several servers may share the room. Without ``$BROKER`` it is in the memory of one: after
a restart the browsers are told that what was said before is gone.
"""

import json
import os
from datetime import UTC, datetime
from typing import Any

from asgi_sse import Request, event_stream
from asgi_sse.channels import Broker, BrokerError, Subscription

LONGEST = 4096

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Chat</title>
<style>
  :root { --ground: #eef0f4; --paper: #fff; --ink: #191c22; --soft: #667080; --own: #2f6bff; --line: #d9dde5 }
  @media (prefers-color-scheme: dark) {
    :root { --ground: #101216; --paper: #1c2027; --ink: #e9ecf1; --soft: #96a0af; --own: #3d6df0; --line: #2c323c }
  }
  * { box-sizing: border-box; margin: 0 }
  body {
    font: 16px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--ground);
    height: 100dvh; max-width: 46rem; margin: 0 auto; display: flex; flex-direction: column;
  }
  header { display: flex; justify-content: space-between; align-items: center; padding: 1rem }
  h1 { font-size: 1.15rem }
  #state { font-size: .85rem; color: var(--soft) }
  #state::before { content: "\\25CF\\A0"; color: #e0a21b }
  #state.open::before { color: #22a565 }
  ol { flex: 1; overflow-y: auto; list-style: none; padding: 0 1rem; display: flex; flex-direction: column; gap: .15rem }
  li { max-width: 80%; align-self: start; padding: .45rem .8rem; border-radius: 1.1rem; background: var(--paper); overflow-wrap: anywhere; white-space: pre-wrap }
  ol::before { content: ""; flex: 1 }
  li.own { align-self: end; background: var(--own); color: #fff }
  li.first { margin-top: .6rem }
  li b { display: none; font-size: .8rem; color: hsl(var(--hue) 55% 48%) }
  li.first:not(.own) b { display: block }
  li time { font-size: .7rem; opacity: .6; margin-left: .6rem; float: right; margin-top: .35rem }
  li.note { align-self: center; background: none; color: var(--soft); font-size: .85rem; text-align: center; padding: 1rem }
  form { display: flex; gap: .5rem; padding: 1rem; flex-wrap: wrap }
  input, button { font: inherit; padding: .6rem .9rem; border-radius: 1.3rem; border: 1px solid var(--line); background: var(--paper); color: inherit; min-width: 0 }
  input[name=name] { width: clamp(5.5rem, 22vw, 8.5rem) }
  input[name=text] { flex: 1 }
  button { background: var(--own); border-color: transparent; color: #fff; font-weight: 600 }
  output { flex: 1 0 100%; font-size: .85rem; color: #d0473c }
  output:empty { display: none }
</style>
<header><h1>Chat</h1><span id="state">Connecting</span></header>
<ol aria-live="polite"></ol>
<form>
  <input name="name" placeholder="Your name" aria-label="Your name" required maxlength="40" autocomplete="nickname">
  <input name="text" placeholder="Say something" aria-label="Message" required maxlength="1000" autocomplete="off">
  <button>Send</button>
  <output></output>
</form>
<script>
  const list = document.querySelector("ol"), form = document.forms[0], state = document.getElementById("state");
  const {name, text} = form.elements, problem = form.querySelector("output");
  const seen = new Set();
  let former = "";
  name.value = localStorage.getItem("name") ?? "";
  (name.value ? text : name).focus();

  // What is kept, the first time; a browser that reconnects says itself what it has seen.
  const events = new EventSource("events?lastEventId=earliest");
  events.onopen = () => { state.textContent = "Connected"; state.className = "open"; };
  events.onerror = () => { state.textContent = "Reconnecting"; state.className = ""; };
  events.onmessage = (event) => {
    // After a reset all that is kept comes again.
    if (seen.has(event.lastEventId)) return;
    seen.add(event.lastEventId);
    const said = JSON.parse(event.data);
    const item = document.createElement("li"), author = document.createElement("b"), time = document.createElement("time");
    author.textContent = said.name;
    author.style.setProperty("--hue", [...said.name].reduce((sum, c) => sum * 31 + c.codePointAt(0), 7) % 360);
    time.dateTime = said.time;
    time.textContent = new Date(said.time).toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"});
    item.append(author, said.text, time);
    if (said.name === name.value) item.classList.add("own");
    if (said.name !== former) item.classList.add("first");
    former = said.name;
    add(item);
  };
  // The server does not have all of what followed the last message here.
  events.addEventListener("reset", () => {
    const note = document.createElement("li");
    note.className = "note";
    note.textContent = "Messages may be missing here: the server no longer has them.";
    former = "";
    add(note);
  });

  function add(item) {
    // Who reads further up is left in peace.
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(item);
    if (atEnd) list.scrollTop = list.scrollHeight;
  }

  form.onsubmit = async (event) => {
    event.preventDefault();
    localStorage.setItem("name", name.value);
    const said = text.value;
    let answer;
    try {
      answer = await fetch("messages", {
        method: "POST",
        headers: {"content-type": "application/json"},
        body: JSON.stringify({name: name.value, text: said}),
      });
    } catch { /* The server is away. */ }
    problem.textContent = answer?.ok ? "" : "Not sent. " + (answer ? await answer.text() : "The server is away; try again.");
    if (answer?.ok && text.value === said) text.value = "";
    text.focus();
  };
</script>
</html>
"""

broker = Broker(os.environ.get("BROKER", "memory://"), history=1000)


@event_stream
def events(request: Request) -> Subscription:
    return broker.channel("chat").subscribe(request.last_event_id)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        async with broker:
            await events(scope, receive, send)
    elif scope["type"] != "http" or scope["path"] == "/events":
        await events(scope, receive, send)
    elif (scope["method"], scope["path"]) == ("GET", "/"):
        await answer(send, 200, PAGE, "text/html; charset=utf-8")
    elif (scope["method"], scope["path"]) == ("POST", "/messages"):
        # Not from a form on another site: it cannot send this without asking first.
        if (b"content-type", b"application/json") in scope["headers"]:
            await answer(send, *await say(await read(receive)))
        else:
            await answer(send, 415, "The content type must be application/json.\n")
    else:
        await answer(send, 404, "Here are /, /events and /messages.\n")


async def say(body: bytes) -> tuple[int, str]:
    """
    Publish a message, and return the status of the answer, and what it says.
    """
    match parse(body):
        case {"name": str(name), "text": str(text)} if name and text:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            try:
                event_id = await broker.publish("chat", {"name": name, "text": text, "time": now})
            except BrokerError as error:
                return 503, f"{error}\n"
            return 201, f"{event_id}\n"
        case _:
            return 400, 'The body must be like {"name": "Ada", "text": "Hi"}.\n'


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
