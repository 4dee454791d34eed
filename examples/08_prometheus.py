"""
Metrics of event streams for Prometheus, and a page that plots what it would collect.

::

    hypercorn examples/08_prometheus.py
    curl -N http://127.0.0.1:8000/events
    curl http://127.0.0.1:8000/metrics

Open http://127.0.0.1:8000/ beside some streams. Needs ``pip install prometheus-client``.

The numbers are those of one process: with several workers let Prometheus scrape each.
"""

import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from asgi_sse import EventStream, statistics

REGISTRY = CollectorRegistry()

DURATION = Histogram(
    "sse_stream_duration_seconds",
    "How long streams were open.",
    buckets=[0.1, 1, 10, 60, 600, 3600, 14400, 86400],
    registry=REGISTRY,
)


class StreamCollector(Collector):
    """
    Makes metrics of ``asgi_sse.statistics()`` whenever they are asked for.
    """

    def collect(self) -> Iterator[Metric]:
        now = statistics()
        yield GaugeMetricFamily("sse_open_streams", "Streams that are open.", now.open)
        yield CounterMetricFamily("sse_events", "Events that were sent.", now.events)
        yield CounterMetricFamily("sse_bytes", "Bytes of body that were sent.", now.bytes)
        yield GaugeMetricFamily("sse_send_waits", "Clients that are waited for.", now.send_waits)
        yield GaugeMetricFamily(
            "sse_longest_lag_seconds", "How long the slowest is waited for.", now.longest_lag
        )
        yield CounterMetricFamily("sse_turned_away", "No stream, at a stop.", now.turned_away)
        closed = CounterMetricFamily("sse_closed_streams", "Streams by end.", labels=["reason"])
        for reason, count in now.closed.items():
            closed.add_metric([reason], count)
        yield closed


REGISTRY.register(StreamCollector())


async def prices() -> AsyncIterator[dict[str, float]]:
    price = 100.0
    while True:
        price += random.gauss(0, 0.2)
        yield {"price": round(price, 2)}
        await anyio.sleep(random.expovariate(5))


events = EventStream(prices, on_close=lambda closed: DURATION.observe(closed.duration))


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http" or scope["path"] == "/events":
        await events(scope, receive, send)
    elif scope["path"] == "/metrics":
        # In the event loop, where the streams are: not with start_http_server(), which has
        # a thread of its own.
        await answer(send, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))
    else:
        await answer(send, "text/html; charset=utf-8", PAGE.encode())


async def answer(send: Any, content_type: str, body: bytes) -> None:
    headers = [(b"content-type", content_type.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Event streams</title>
<link rel="icon" href="data:,">
<style>
  :root { --ground: light-dark(#f4f5f5, #111217); --panel: light-dark(#fff, #181b1f); --line: light-dark(#e4e5e7, #2a2d33);
    --ink: light-dark(#24292e, #d8d9da); --muted: light-dark(#6b7078, #8e9299); color-scheme: light dark; }
  * { box-sizing: border-box; margin: 0; }
  body { font: 14px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; background: var(--ground); color: var(--ink); padding: clamp(12px, 2vw, 24px); }
  header { display: flex; justify-content: space-between; align-items: baseline; gap: 12px; flex-wrap: wrap; margin-bottom: 14px; }
  h1 { font-size: 19px; font-weight: 600; } a { color: inherit; } header p { color: var(--muted); font-size: 13px; }
  main { display: grid; gap: 10px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); }
  article { background: var(--panel); border: 1px solid var(--line); border-radius: 4px; padding: 10px 14px 12px; min-width: 0; }
  h2 { font-size: 13px; font-weight: 500; display: flex; justify-content: space-between; gap: 8px; }
  h2 b { font-size: 20px; font-weight: 600; line-height: 1.1; color: var(--hue, inherit); }
  .plot { position: relative; height: 130px; margin: 10px 0 0 44px; border-block: 1px solid var(--line); }
  .plot span { position: absolute; right: calc(100% + 8px); font-size: 11px; line-height: 1; color: var(--muted); white-space: nowrap; }
  .plot span:nth-of-type(1) { top: -5px; } .plot span:nth-of-type(2) { bottom: -5px; }
  svg { display: block; width: 100%; height: 100%; overflow: visible; }
  path { vector-effect: non-scaling-stroke; fill: none; stroke-width: 1.6; stroke-linejoin: round; }
  .legend { display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 8px 0 0 44px; font-size: 12px; color: var(--muted); min-height: 18px; }
  .legend i { display: inline-block; width: 10px; height: 3px; border-radius: 2px; background: var(--hue); margin-right: 6px; vertical-align: 3px; }
</style>
<header><h1>Event streams</h1><p>from <a href="metrics">/metrics</a>, every second, the last five minutes</p></header>
<main></main>
<script>
"use strict";
const HUES = ["#3d8bfd", "#73bf69", "#f2a900", "#e0517a", "#b877d9", "#ff780a", "#2fb8ac", "#8ab8ff", "#c4162a", "#8f8f8f"];
const PANELS = [
  ["Open streams", "sse_open_streams", false, ""], ["Events per second", "sse_events_total", true, "/s"],
  ["Bytes per second", "sse_bytes_total", true, "B/s"], ["Closed streams, by reason", "sse_closed_streams_total", false, ""],
  ["Clients that are waited for", "sse_send_waits", false, ""], ["Longest lag", "sse_longest_lag_seconds", false, "s"],
].map(([title, metric, rate, unit], n) => {
  const card = document.createElement("article");
  card.innerHTML = "<h2></h2><div class=plot><span></span><span></span><svg viewBox='0 0 100 100' preserveAspectRatio=none></svg></div><p class=legend></p>";
  card.style.setProperty("--hue", HUES[n]);
  document.querySelector("main").append(card);
  return { title, metric, rate, unit, card, hue: n, lines: new Map() };
});

function parse(text) {
  const found = {};
  for (const [, name, labels, value] of text.matchAll(/^(\\w+)(?:\\{(.*)\\})? (\\S+)$/gm))
    (found[name] ??= new Map()).set((labels ?? "").replace(/^\\w+="(.*)"$/, "$1"), Number(value));
  return found;
}

const text = (value) => value >= 1e6 ? (value / 1e6).toFixed(1) + " M" : value >= 1e4 ? (value / 1e3).toFixed(1) + " k" : String(+value.toFixed(value < 10 ? 2 : 0));

let last = null;
async function scrape() {
  const answer = await fetch("metrics", { cache: "no-store" }).then((it) => it.text()).catch(() => null);
  const at = performance.now() / 1000, now = answer && parse(answer);
  for (const panel of now ? PANELS : []) {
    for (const [label, value] of now[panel.metric] ?? []) {
      if (!panel.lines.has(label)) panel.lines.set(label, []);
      const before = last?.now[panel.metric]?.get(label);
      if (panel.rate && before === undefined) continue;
      panel.lines.get(label).push([at, panel.rate ? Math.max(0, value - before) / (at - last.at) : value]);
    }
    draw(panel, at);
  }
  if (now) last = { at, now };
  setTimeout(scrape, 1000);
}

function draw(panel, now) {
  const svg = panel.card.querySelector("svg"), legend = panel.card.querySelector(".legend"), [high, low] = panel.card.querySelectorAll(".plot span");
  const lines = [...panel.lines].map(([label, points]) => [label, points.filter(([at]) => at > now - 300)]);
  const moved = lines.filter(([label, points]) => label === "" || points.some(([, value]) => value));
  const top = Math.max(...lines.flatMap(([, points]) => points.map(([, value]) => value)), 0) * 1.1 || 1;
  svg.replaceChildren(); legend.replaceChildren();
  let total = 0;
  moved.forEach(([label, points], n) => {
    const hue = HUES[label ? n : panel.hue], path = points.map(([at, value]) => (100 - (now - at) / 3).toFixed(2) + " " + (100 - value / top * 100).toFixed(2));
    total += points.at(-1)?.[1] ?? 0;
    for (const fill of label ? [false] : [true, false]) {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
      if (path.length) line.setAttribute("d", "M" + path.join("L") + (fill ? "V100H" + path[0].split(" ")[0] + "Z" : ""));
      line.style[fill ? "fill" : "stroke"] = hue;
      if (fill) line.style.opacity = .12;
      svg.append(line);
    }
    if (!label) return;
    const key = document.createElement("span");
    key.innerHTML = "<i></i>";
    key.style.setProperty("--hue", hue);
    key.append(label + "  " + text(points.at(-1)?.[1] ?? 0));
    legend.append(key);
  });
  high.textContent = text(top); low.textContent = "0";
  const value = document.createElement("b");
  value.textContent = text(total) + (panel.unit && "\\u202f" + panel.unit);
  panel.card.querySelector("h2").replaceChildren(panel.title, value);
}
scrape();
</script>
"""
