"""
Print what becomes of open streams when a server stops, with this library and with others.

Run it with the Python whose servers are to be asked::

    python tests/servers/shutdown_table.py [--clients 100] [--signal SIGINT] [NAME...]

Each row tells how long after the signal the server had ended, and of how many clients the
response was complete (and not cut off), said goodbye, and had a source whose cleanup came
to its end. Only servers and libraries that are installed are in it.
"""

import argparse
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# Also of a checkout that is not installed, and when it is not run from here.
sys.path.append(str(Path(__file__).parents[2]))

from crowd import Crowd
from harness import Certificates, Server
from ways_to_stop import CASES, Case

# Nobody waits longer for Ctrl-C; and nothing happens any more after the servers' own grace.
LONGEST = 6.0


@dataclass
class Row:
    """
    What became of the clients of one server.
    """

    server: str
    library: str
    gone: float | None
    clients: int
    complete: int
    goodbye: int
    cleaned_up: int
    tracebacks: int
    note: str = ""

    def __str__(self) -> str:
        gone = f"> {LONGEST:.0f} s" if self.gone is None else f"{self.gone:.2f} s"
        counts = (
            f"{count}/{self.clients}" for count in (self.complete, self.goodbye, self.cleaned_up)
        )
        cells = [self.server, self.library, gone, *counts, str(self.tracebacks), self.note]
        return " | ".join(f"{cell:{width}}" for cell, width in zip(cells, WIDTHS, strict=True))


HEADS = ["server", "library", "gone", "complete", "goodbye", "cleaned", "tracebacks", "note"]
WIDTHS = [41, 24, 7, 8, 8, 8, 10, 0]


def measure(
    case: Case, app: str, library: str, number: signal.Signals, clients: int, files: Certificates
) -> Row:
    """
    Start a server, open streams, stop it, and see.
    """
    gone: float | None = None
    server = Server(case.config, app, files)
    # Not its "with" block, which insists on a good end.
    server.__enter__()
    try:
        case.wait_started(server)
        with Crowd(server.connect, ["/unaware"] * clients, http2=case.config.http2) as crowd:
            crowd.wait_for(b"hello")
            began = time.monotonic()
            server.signal(number)

            def is_over() -> bool:
                nonlocal gone
                if gone is None:
                    try:
                        server.wait_stopped(0)
                        gone = time.monotonic() - began
                    except subprocess.TimeoutExpired:
                        return False
                return all(reader.over for reader in crowd.readers)

            try:
                crowd.pump(is_over, LONGEST)
            except TimeoutError:
                pass
            output = server.take_output()
            return Row(
                case.name,
                library,
                gone,
                clients,
                complete=sum(reader.complete for reader in crowd.readers),
                goodbye=sum("goodbye" in reader.data for reader in crowd.readers),
                cleaned_up=output.count("closed /unaware shutdown True"),
                tracebacks=output.count("Traceback"),
                note=case.defect,
            )
    finally:
        server._kill()


def libraries(case: Case) -> list[tuple[str, str]]:
    """
    Return the names of what is to be compared, and where the apps are.
    """
    ours = [("asgi_sse", "stopping:app")]
    if case.app != "stopping:app":
        ours.append(("asgi_sse, heed_signals()", case.app))
    if case.config.command.startswith("embedded serve"):
        return ours
    return [
        *ours,
        *(
            (name, f"{module}:app")
            for name, module in (
                ("sse-starlette", "peer_sse_starlette"),
                ("fastapi.sse", "peer_fastapi"),
            )
            if find_spec(name.replace("-", "_").partition(".")[0])
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0].strip())
    parser.add_argument("names", nargs="*", metavar="NAME", help="a part of a server's name")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--signal", type=lambda name: signal.Signals[name], default=signal.SIGTERM)
    args = parser.parse_args()
    print(f"Python {platform.python_version()}, {args.clients} clients, {args.signal.name}")
    print(" | ".join(f"{head:{width}}" for head, width in zip(HEADS, WIDTHS, strict=True)))
    with tempfile.TemporaryDirectory() as folder:
        certificates = Certificates(Path(folder))
        for case in CASES:
            if args.names and not any(name in case.name for name in args.names):
                continue
            if find_spec(case.config.command.split()[0]) is None:
                continue
            for library, app in libraries(case):
                try:
                    row = measure(case, app, library, args.signal, args.clients, certificates)
                except (RuntimeError, TimeoutError) as error:
                    print(f"{case.name} | {library} | {str(error).splitlines()[0]}")
                else:
                    print(row, flush=True)


if __name__ == "__main__":
    main()
