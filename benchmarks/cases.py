"""
What is compared: each case measures all contestants in turn and returns tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles

from . import in_memory
from .clients import Clients
from .contestants import CONTESTANTS, FLOOR, OURS, OURS_CHANNEL
from .measures import (
    Curves,
    Result,
    Samples,
    Values,
    interleave,
    middle,
    prepare,
    ratio_table,
    value_table,
)
from .servers import Server

STARLETTE = "Starlette StreamingResponse"
SSE_STARLETTE = "sse-starlette"
STARLETTE_ADAPTER = "asgi_sse.starlette"
FASTAPI = "fastapi.sse"
FASTAPI_ADAPTER = "asgi_sse.fastapi"

# asgi_sse's channel only differs for subscriptions.
ON_ASGI = (
    FLOOR,
    OURS,
    STARLETTE,
    SSE_STARLETTE,
    STARLETTE_ADAPTER,
    FASTAPI,
    FASTAPI_ADAPTER,
    "Litestar",
)
FEW = (FLOOR, OURS, SSE_STARLETTE)
AIOHTTP = "aiohttp-sse"
BETTER_SSE = "better-sse (Node)"
NCHAN = "nchan (nginx)"

KIB = 1 / 1024


@dataclass(frozen=True)
class Options:
    """
    How long and with whom to measure.
    """

    rounds: int = 5
    quick: bool = False
    #: None: everyone.
    only: frozenset[str] | None = None

    def admit(self, names: Iterable[str], result: Result) -> list[str]:
        """
        Return those who are wanted and installed; the others are named in *result*.
        """
        admitted = []
        for name in names:
            if self.only is not None and name not in self.only:
                continue
            if reason := CONTESTANTS[name].missing():
                result.absent[name] = reason
            else:
                admitted.append(name)
        return admitted

    def either(self, full: int, quick: int) -> int:
        """
        Return the number for a full or for a quick run.
        """
        return quick if self.quick else full


@dataclass(frozen=True)
class Case:
    """
    A case, and what the page says about it.
    """

    name: str
    title: str
    text: str
    run: Callable[[Options], Result]


CASES: dict[str, Case] = {}


def case(title: str) -> Callable[[Callable[[Options], Result]], Callable[[Options], Result]]:
    """
    Make a case of a function; its docstring is what the page says about it.
    """

    def register(function: Callable[[Options], Result]) -> Callable[[Options], Result]:
        text = "\n".join(line.strip() for line in (function.__doc__ or "").strip().splitlines())
        CASES[function.__name__] = Case(function.__name__, title, text, function)
        return function

    return register


@contextmanager
def servers(names: Iterable[str], server: str, result: Result) -> Iterator[dict[str, Server]]:
    """
    Run a server for each contestant, all at the same time; idle ones cost nothing.
    """
    with ExitStack() as stack:
        running = {}
        for name in names:
            try:
                running[name] = stack.enter_context(Server(CONTESTANTS[name], server))
            except RuntimeError as error:
                result.absent[name] = str(error)
        yield running


# In memory.


def _cpu_in_memory(
    names: list[str],
    path: str,
    backend: str,
    connect: Callable[[], in_memory.Connection],
    options: Options,
    absent: dict[str, str],
) -> Samples:
    seconds = 0.1 if options.quick else 0.3

    def make(name: str) -> Callable[[], Values]:
        app = in_memory.make_app(name)
        # The first run warms up, the second tells how many events take long enough.
        in_memory.cpu_per_event(app, path, 1000, backend, connect)
        events = int(seconds / in_memory.cpu_per_event(app, path, 5000, backend, connect))
        return partial(_value, in_memory.cpu_per_event, app, path, events, backend, connect)

    return interleave(options.rounds, prepare(names, make, absent), absent)


def _value(function: Callable[..., float], *args: object) -> Values:
    return {"value": function(*args)}


@case("In memory: CPU per event")
def memory_cpu(options: Options) -> Result:
    """
    One response, called without a server. ``send`` does the least that an HTTP/1.1
    server must: it frames the chunk into a buffer, which is then dropped; or,
    where the table says so, nothing.
    """
    result = Result()
    everyone = options.admit(ON_ASGI, result)
    few = options.admit(FEW, result)
    framed, null = in_memory.Connection, in_memory.NullConnection
    for title, path, backend, connect, names, targets in (
        ("Source never waits, in memory", "/flood", "asyncio", framed, everyone, {OURS: 0.6}),
        ("Source never waits, send does nothing", "/flood", "asyncio", null, few, {}),
        ("Source gives way before each event", "/turning", "asyncio", framed, everyone, {}),
        ("Source never waits, trio", "/flood", "trio", framed, few, {}),
        ("Source gives way before each event, trio", "/turning", "trio", framed, few, {}),
    ):
        samples = _cpu_in_memory(names, path, backend, connect, options, result.absent)
        result.tables.append(ratio_table(title, samples, "value", "CPU us per event", targets))

    def make(name: str) -> Callable[[], Values]:
        app = in_memory.make_app(name)
        in_memory.cpu_per_stream(app, 50)
        return partial(_value, in_memory.cpu_per_stream, app, options.either(1000, 200))

    samples = interleave(options.rounds, prepare(everyone, make, result.absent), result.absent)
    title = "A stream of one event, from the request to the end"
    result.tables.append(ratio_table(title, samples, "value", "CPU us per stream"))
    return result


@case("In memory: what the adapters add")
def adapters(options: Options) -> Result:
    """
    The same source without an adapter, with one, and with the library that the adapter
    replaces. Models are pydantic's and become JSON; FastAPI is told their type, and a
    hand-written loop calls ``model_dump_json()``.
    """
    result = Result()
    for what, path, adapter, replaced in (
        ("text, source never waits", "/flood", STARLETTE_ADAPTER, SSE_STARLETTE),
        ("text, source gives way before each event", "/turning", STARLETTE_ADAPTER, SSE_STARLETTE),
        ("models, source never waits", "/models", FASTAPI_ADAPTER, FASTAPI),
    ):
        names = options.admit((FLOOR, OURS, adapter, replaced), result)
        connect = in_memory.Connection
        samples = _cpu_in_memory(names, path, "asyncio", connect, options, result.absent)
        columns = {"value": ("CPU us per event", 1e6)}
        if OURS in samples:
            for name in samples:
                for values, core in zip(samples[name], samples[OURS], strict=True):
                    values["added"] = values["value"] - core["value"]
            columns["added"] = ("us more than asgi_sse", 1e6)
        title = f"More than asgi_sse, {what}"
        result.tables.append(value_table(title, samples, columns, {adapter: 1}))
    return result


@case("In memory: memory per idle stream")
def memory_idle(options: Options) -> Result:
    """
    Streams of which each has sent one event and waits, in a fresh process without a
    server. *Traced* is what Python has allocated (tracemalloc), *resident* how much
    RAM the process gained.
    """
    result = Result()
    streams = options.either(2000, 500)

    def measure(name: str) -> Values:
        path = "/subscribe" if name == OURS_CHANNEL else "/idle"
        return {
            kind: in_memory.memory_per_stream(name, path, streams, kind)
            for kind in ("resident", "traced")
        }

    names = options.admit((*ON_ASGI, OURS_CHANNEL), result)
    # Once: what Python allocates is the same each time.
    samples = interleave(1, {name: partial(measure, name) for name in names}, result.absent)
    columns = {"resident": ("resident KiB", KIB), "traced": ("traced KiB", KIB)}
    title = f"{streams:,} idle streams, in memory"
    targets = {OURS: 12, OURS_CHANNEL: 10}
    result.tables.append(value_table(title, samples, columns, targets, drawn=True))
    return result


# A source that never waits.


def _flood(server: Server, streams: int, events: int, times: int = 1, size: int = 30) -> float:
    """
    Return the CPU seconds per event of finite streams that come as fast as they can.
    """
    before = server.cpu()
    for _ in range(times):
        with Clients(server.port) as clients:
            clients.open(streams, f"/flood?events={events}&size={size}")
            clients.wait_events(streams * events, 60)
            clients.run(0.01)  # The end of the streams is theirs, too.
    return (server.cpu() - before) / (times * streams * events)


def _flood_for(
    server: Server, streams: int, seconds: float, size: int = 30
) -> Callable[[], Values]:
    """
    Return a measurement that takes about some seconds of the server's CPU.
    """
    # No longer, but more often: once a client has fallen behind, the server fills its
    # own buffer, and does so to the end of the stream. (See README.rst.)
    events = max(20, min(20_000, 20_000_000 // size))
    _flood(server, streams, min(events, 1000), size=size)
    cost = _flood(server, streams, min(events, 5000), size=size)
    events = max(20, min(events, int(seconds / cost / streams)))
    times = max(1, round(seconds / (cost * streams * events)))
    return partial(_value, _flood, server, streams, events, times, size)


def _flood_case(server: str, target: float, options: Options) -> Result:
    result = Result()
    names = options.admit(ON_ASGI, result)
    with servers(names, server, result) as running:
        seconds = 0.15 if options.quick else 0.6
        measures = prepare(
            running, lambda name: _flood_for(running[name], 4, seconds), result.absent
        )
        samples = interleave(options.rounds, measures, result.absent)
    table = ratio_table(
        f"Source never waits, {server}", samples, "value", "CPU us per event", {OURS: target}
    )
    result.tables.append(table)
    return result


@case("Source that never waits: hypercorn")
def flood_hypercorn(options: Options) -> Result:
    """
    Four clients read finite streams of 30-byte events as fast as they come.
    """
    return _flood_case("hypercorn", 0.06, options)


@case("Source that never waits: uvicorn")
def flood_uvicorn(options: Options) -> Result:
    """
    Four clients read finite streams of 30-byte events as fast as they come.
    """
    return _flood_case("uvicorn", 0.12, options)


@case("Source that never waits: granian")
def flood_granian(options: Options) -> Result:
    """
    Four clients read finite streams of 30-byte events as fast as they come.
    """
    return _flood_case("granian", 0.06, options)


# A source that waits.


def _paced(server: Server, streams: int, interval: float, seconds: float) -> Values:
    """
    Measure streams of which each has an event every *interval* seconds.
    """
    settle = max(0.4, interval)
    # Enough for the time it takes to open all streams, and no more: see sources.paced.
    events = int((seconds + 2 * settle + streams / 1000) / interval)
    with Clients(server.port) as clients:
        clients.open(streams, f"/paced?events={events}&interval={interval:.6f}")
        clients.run(settle)
        cpu, received = server.cpu(), clients.events
        clients.run(seconds)
        received = clients.events - received
        return {"cpu": (server.cpu() - cpu) / received, "memory": server.memory()}


def _paced_case(server: str, own: tuple[str, ...], target: float, options: Options) -> Result:
    result = Result()
    names = options.admit((*ON_ASGI, *own), result)
    seconds = 0.6 if options.quick else 1.2

    def measure(name: str) -> Values:
        # Where things lie in the memory of a process is chance, and makes a tenth here.
        with Server(CONTESTANTS[name], server) as running:
            _paced(running, 100, 0.02, 0.1)
            return _paced(running, 100, 0.02, seconds)

    measures = {name: partial(measure, name) for name in names}
    # Sources that wake at the same time share a turn of the event loop. How many do is a
    # matter of chance, too, so there are more rounds.
    samples = interleave(options.either(options.rounds + 3, 1), measures, result.absent)
    title = f"100 clients, an event each 20 ms, {server}"
    table = ratio_table(title, samples, "cpu", "CPU us per event", {OURS: target})
    result.tables.append(table)
    return result


@case("Source that waits: hypercorn")
def paced_hypercorn(options: Options) -> Result:
    """
    100 clients; each stream's source sleeps 20 ms before each event. A fresh process for
    each round.
    """
    return _paced_case("hypercorn", (), 1.1, options)


@case("Source that waits: uvicorn and own servers")
def paced_uvicorn(options: Options) -> Result:
    """
    100 clients; each stream's source sleeps 20 ms before each event. A fresh process for
    each round. aiohttp-sse and better-sse run on their own servers and are compared with
    the hand-written loop on uvicorn.
    """
    return _paced_case("uvicorn", (AIOHTTP, BETTER_SSE), 1.15, options)


@case("Source that waits: hypercorn's trio worker")
def paced_trio(options: Options) -> Result:
    """
    20 clients; each stream's source sleeps 20 ms before each event.
    """
    result = Result()
    seconds = 0.6 if options.quick else 1.2
    with servers(options.admit(FEW, result), "hypercorn-trio", result) as running:
        measures = {name: partial(_paced, running[name], 20, 0.02, seconds) for name in running}
        samples = interleave(options.either(options.rounds, 1), measures, result.absent)
    title = "20 clients, an event each 20 ms, hypercorn-trio"
    result.tables.append(ratio_table(title, samples, "cpu", "CPU us per event"))
    return result


# Idle streams.


@case("Memory per idle stream: uvicorn and own servers")
def idle_uvicorn(options: Options) -> Result:
    """
    What the server process gains in RAM per stream that has sent one event and waits:
    the connection, the server's share and the library's.
    """
    result = Result()
    streams = options.either(2000, 500)

    def measure(name: str) -> Values:
        with Server(CONTESTANTS[name], "uvicorn") as server, Clients(server.port) as clients:
            clients.open(20, "/idle")
            before = server.memory()
            clients.open(streams, "/idle")
            clients.run(0.2)
            return {"memory": (server.memory() - before) / streams}

    names = options.admit((*ON_ASGI, AIOHTTP, BETTER_SSE), result)
    measures = {name: partial(measure, name) for name in names}
    samples = interleave(options.either(2, 1), measures, result.absent)
    table = ratio_table(
        f"{streams:,} idle streams, uvicorn", samples, "memory", "KiB per stream", scale=KIB
    )
    result.tables.append(table)
    return result


@case("10,000 idle streams on one hypercorn process")
def keep_alive(options: Options) -> Result:
    """
    Streams that have nothing to say but a keep-alive each 15 s. When all are open, the
    server process is watched for 16 s: its share of one core, and how many of the
    streams received something in that time.
    """
    result = Result()
    streams, seconds = options.either(10_000, 500), 16

    def measure(name: str) -> Values:
        with Server(CONTESTANTS[name], "hypercorn") as server, Clients(server.port) as clients:
            clients.open(20, "/idle")
            memory = server.memory()
            clients.open(streams - 20, "/idle")
            clients.run(0.5)
            memory = server.memory() - memory
            seen = [stream.bytes for stream in clients.streams]
            cpu, began = server.cpu(), time.monotonic()
            clients.run(seconds)
            cpu, began = server.cpu() - cpu, time.monotonic() - began
            alive = sum(
                stream.bytes > before for stream, before in zip(clients.streams, seen, strict=True)
            )
            return {
                "share": cpu / began,
                "alive": alive,
                "memory": memory / (streams - 20),
                "each": cpu / max(alive, 1),
            }

    names = options.admit((OURS,) if options.quick else (OURS, SSE_STARLETTE), result)
    measures = {name: partial(measure, name) for name in names}
    samples = interleave(1, measures, result.absent)
    columns = {
        "share": ("CPU %", 100.0),
        "alive": (f"heard from in {seconds} s", 1.0),
        "each": ("CPU us per keep-alive", 1e6),
        "memory": ("KiB per stream", KIB),
    }
    result.tables.append(value_table(f"{streams:,} idle streams", samples, columns))
    return result


# Fan-out.


def _fan_out(name: str, subscribers: int, seconds: float) -> Values:
    """
    Measure a channel's deliveries, for about so many seconds each one by one and in bursts.
    """
    with Server(CONTESTANTS[name], "uvicorn") as server, Clients(server.port) as clients:
        if server.server != "nginx":
            with Clients(server.port) as first:
                first.open(20, "/flood?events=100")
                first.wait_events(2000)
        memory = server.memory()
        clients.open(subscribers, "/subscribe")
        clients.run(0.3)
        memory = server.memory() - memory

        # Time enough for everybody to have an event before the next one comes.
        interval = max(0.005, subscribers * 0.00008)
        times = max(5, int(seconds / interval))
        expected = 0

        def publish(times: int, burst: int) -> tuple[float, list[int]]:
            nonlocal expected
            expected += subscribers * times * burst
            cpu = server.cpu()
            published = server.publish(times, burst, interval, clients.run)
            clients.wait_events(expected)
            return (server.cpu() - cpu) / (subscribers * times * burst), published

        publish(1, 1)
        clients.arrivals = []
        paced, published = publish(times, 1)
        latencies = [now - published[index - 1] for index, now in clients.arrivals]
        clients.arrivals = None
        burst, _ = publish(times // 2 + 1, 10)

    percentiles = quantiles(latencies, n=100)
    return {
        "paced": paced,
        "burst": burst,
        "paced rate": 1 / paced,
        "burst rate": 1 / burst,
        "memory": memory / subscribers,
        "p50": percentiles[49] / 1e9,
        "p99": percentiles[98] / 1e9,
    }


@case("Fan-out to 1,000 subscribers: uvicorn and own servers")
def fan_out(options: Options) -> Result:
    """
    Every event goes to every subscriber. *Paced* is one event each 0.08 s, *bursts* are
    ten at once. Python contestants without a channel of their own read from a queue per
    subscriber. Latency is from publishing to the arrival at the client, for paced
    events; all clients share one process. nchan is published to over HTTP, and its clock
    starts there. Memory is RAM of the server process.
    """
    result = Result()
    subscribers = options.either(1000, 200)
    names = options.admit(
        (FLOOR, OURS_CHANNEL, OURS, STARLETTE, SSE_STARLETTE, AIOHTTP, BETTER_SSE, NCHAN), result
    )
    seconds = 0.5 if options.quick else 1.5
    measures = {name: partial(_fan_out, name, subscribers, seconds) for name in names}
    samples = interleave(options.either(options.rounds, 1), measures, result.absent)
    for title, value, target in (("paced", "paced", 1.0), ("bursts of ten", "burst", 0.3)):
        table = ratio_table(
            f"{subscribers:,} subscribers, {title}",
            samples,
            value,
            "CPU us per delivery",
            {OURS_CHANNEL: target},
        )
        result.tables.append(table)
    columns = {"memory": ("KiB per subscriber", KIB)}
    title = f"{subscribers:,} subscribers, memory"
    table = value_table(title, samples, columns, {OURS_CHANNEL: 20}, drawn=True)
    result.tables.append(table)
    columns = {"p50": ("p50 ms", 1e3), "p99": ("p99 ms", 1e3)}
    title = f"{subscribers:,} subscribers, publish to receipt"
    result.tables.append(value_table(title, samples, columns, drawn=True))
    return result


@case("Fan-out to 1 to 5,000 subscribers: uvicorn and own servers")
def fan_out_growth(options: Options) -> Result:
    """
    As above, for other numbers of subscribers. To one subscriber a delivery costs what
    publishing costs, and memory of less than 1,000 is too little to be seen.
    """
    result = Result()
    counts = [1, 100] if options.quick else [1, 100, 1000, 5000]
    seconds = 0.3 if options.quick else 1.0

    def measure(name: str) -> Values:
        return {
            f"{value} {count}": found
            for count in counts
            for value, found in _fan_out(name, count, seconds).items()
        }

    names = options.admit((FLOOR, OURS_CHANNEL, SSE_STARLETTE, BETTER_SSE, NCHAN), result)
    measures = {name: partial(measure, name) for name in names}
    samples = interleave(options.either(2, 1), measures, result.absent)
    for value, unit, scale, steps in (
        ("paced", "CPU us per delivery", 1e6, counts),
        ("burst", "CPU us per delivery in bursts", 1e6, counts),
        ("memory", "KiB per subscriber", KIB, counts[-2:]),
    ):
        grows = value != "memory"
        _add_growth(result, samples, steps, value, "subscribers", unit, scale, grows=grows)
    for value, pace in (("paced rate", "paced"), ("burst rate", "bursts of ten")):
        columns = {f"{value} {count}": (f"{count:,}", 1.0) for count in counts}
        title = f"Deliveries per CPU second, {pace}"
        result.tables.append(value_table(title, samples, columns))
    return result


# Opening.


def _first(server: Server, times: int) -> Values:
    """
    Measure the seconds from connecting to the first byte and event, one at a time.
    """
    with Clients(server.port) as clients:
        waits = []
        for number in range(times):
            began = time.monotonic_ns()
            stream = clients.start("/idle")
            clients.wait_events(number + 1)
            waits.append((stream.first_byte_at - began, stream.first_event_at - began))
            clients.close(stream)
            clients.run(0.001)
        byte, event = zip(*waits, strict=True)
        return {"byte": median(byte) / 1e9, "event": median(event) / 1e9}


def _open_and_leave(server: Server, batches: int, batch: int = 20) -> Values:
    """
    Measure streams that are left after their first event.
    """
    cpu, began = server.cpu(), time.monotonic()
    for _ in range(batches):
        with Clients(server.port) as clients:
            for _ in range(batch):
                clients.start("/idle")
            clients.wait_events(batch)
    elapsed = time.monotonic() - began
    time.sleep(0.1)  # Until the last ones are cleaned up.
    count = batches * batch
    return {"cpu": (server.cpu() - cpu) / count, "rate": count / elapsed}


@case("Opening: uvicorn and own servers")
def opening(options: Options) -> Result:
    """
    *First byte* and *first event* are the times from connecting to those of a stream, one
    client at a time, the median of many. *Streams per second* are opened, and left after their
    first event, 20 at a time; CPU is for the whole of it, with the clean-up (which the
    hand-written loop does not have).
    """
    result = Result()
    names = options.admit((*ON_ASGI, AIOHTTP, BETTER_SSE), result)

    def measure(server: Server) -> Values:
        first = _first(server, options.either(50, 20))
        return first | _open_and_leave(server, options.either(20, 5))

    with servers(names, "uvicorn", result) as running:

        def make(name: str) -> Callable[[], Values]:
            measure(running[name])
            return partial(measure, running[name])

        measures = prepare(running, make, result.absent)
        samples = interleave(options.either(options.rounds, 1), measures, result.absent)
    columns = {
        "byte": ("first byte ms", 1e3),
        "event": ("first event ms", 1e3),
        "rate": ("streams per second", 1.0),
    }
    result.tables += [
        ratio_table("CPU per stream opened and left", samples, "cpu", "CPU us per stream"),
        value_table("First byte, first event, streams per second", samples, columns),
    ]
    return result


# Growth.


@case("Growth with the number of connections: uvicorn")
def connections(options: Options) -> Result:
    """
    The same 2,000 events a second for 10 to 10,000 connections. A line that is flat
    means that a connection costs nothing while it is quiet.
    """
    result = Result()
    counts = [10, 100, 1000] if options.quick else [10, 100, 1000, 10_000]

    def measure(name: str) -> Values:
        values = {}
        for count in counts:
            with Server(CONTESTANTS[name], "uvicorn") as server:
                _flood(server, 10, 100)
                before = server.memory()
                interval = count / 2000
                window = max(options.either(2, 1), interval)
                found = _paced(server, count, interval, window)
                values[f"cpu {count}"] = found["cpu"]
                values[f"memory {count}"] = (found["memory"] - before) / count
        return values

    names = options.admit(FEW, result)
    samples = interleave(1, {name: partial(measure, name) for name in names}, result.absent)
    _add_growth(result, samples, counts, "cpu", "connections", "CPU us per event", 1e6)
    _add_growth(result, samples, counts[1:], "memory", "connections", "KiB per stream", KIB)
    return result


@case("Growth with the size of events: uvicorn")
def sizes(options: Options) -> Result:
    """
    One client reads events of 10 bytes to 1 MB from a source that never waits.
    """
    result = Result()
    sizes = [10, 1000, 100_000] if options.quick else [10, 100, 1000, 10_000, 100_000, 1_000_000]
    seconds = 0.05 if options.quick else 0.2

    with servers(options.admit(FEW, result), "uvicorn", result) as running:

        def make(name: str) -> Callable[[], Values]:
            floods = {size: _flood_for(running[name], 1, seconds, size) for size in sizes}
            return lambda: {f"cpu {size}": floods[size]()["value"] for size in sizes}

        measures = prepare(running, make, result.absent)
        samples = interleave(options.either(3, 1), measures, result.absent)
    _add_growth(
        result, samples, sizes, "cpu", "bytes of data", "CPU us per event", 1e6, grows=True
    )
    return result


def _add_growth(
    result: Result,
    samples: Samples,
    steps: list[int],
    value: str,
    x_label: str,
    y_label: str,
    scale: float,
    *,
    grows: bool = False,
) -> None:
    columns = {f"{value} {step}": (f"{step:,}", scale) for step in steps}
    table = value_table(f"{y_label}, by {x_label}", samples, columns)
    result.tables.append(table)
    lines = {
        name: [(float(step), middle(samples, name, f"{value} {step}") * scale) for step in steps]
        for name in samples
    }
    result.curves[table.title] = Curves(x_label, y_label, lines, grows)
