"""
Every server, in every way to start it that differs in how it stops.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness import Server, ServerConfig

__all__ = ["CASES", "CONFIGS", "RELOADS", "Case", "Reload"]


@dataclass(frozen=True)
class Case:
    """
    A server, and how its stop differs from that of others.
    """

    config: ServerConfig
    #: The way into stopping.py.
    app: str = "stopping:app"
    #: How many of a hundred clients see no end, although they get all that was sent.
    unended: int = 0
    #: What it prints once it hears signals, if it answers requests before that.
    started: tuple[str, ...] = ()
    #: What the server does wrong, for the table.
    defect: str = ""

    @property
    def name(self) -> str:
        return self.config.name

    def wait_started(self, server: Server) -> None:
        """
        Wait until the server may be told to stop.
        """
        output = ""
        for text in self.started:
            output += "" if text in output else server.take_output(until=text)


_TLS = " --certfile {certificate} --keyfile {key}"
_GUNICORN = "gunicorn --bind fd://{fd} --no-control-socket --worker-class "
_GRANIAN = "granian --interface asgi --port {port}"


def _hypercorn() -> list[Case]:
    cases = []
    for worker in ("asyncio", "uvloop", "trio"):
        command = f"hypercorn --bind fd://{{fd}} --worker-class {worker}"
        for workers in (0, 1, 4):
            name = f"hypercorn -k {worker} -w {workers}"
            config = ServerConfig(name, f"{command} --workers {workers}")
            if workers == 4:
                case = Case(
                    config,
                    "stopping:heedful",
                    defect="kills the other workers as soon as one has ended",
                )
            elif workers == 0 and worker == "trio":
                case = Case(config, "stopping:heedful", defect="dies at SIGTERM")
            else:
                case = Case(config)
            cases.append(case)
        http2 = ServerConfig(f"hypercorn -k {worker}, HTTP/2", command + _TLS, http2=True)
        if worker == "trio":
            cases.append(
                Case(http2, unended=4, defect="does not end the last stream of a connection")
            )
        else:
            cases.append(Case(http2))
    return cases


def _embedded(name: str, how: str) -> Case:
    return Case(ServerConfig(name, f"embedded {how} {{fd}}"))


CASES = [
    *_hypercorn(),
    _embedded("hypercorn.asyncio.serve()", "hypercorn-asyncio"),
    _embedded("hypercorn.trio.serve()", "hypercorn-trio"),
    _embedded("asgi_sse.hypercorn.serve(), asyncio", "serve-asyncio"),
    _embedded("asgi_sse.hypercorn.serve(), uvloop", "serve-uvloop"),
    _embedded("asgi_sse.hypercorn.serve(), trio", "serve-trio"),
    Case(
        ServerConfig(
            "asgi_sse.hypercorn.serve(), trio, HTTP/2",
            "embedded serve-trio {fd} {certificate} {key}",
            http2=True,
        )
    ),
    Case(ServerConfig("uvicorn", "uvicorn --fd {fd}")),
    Case(
        ServerConfig(
            "uvicorn --loop asyncio --http h11", "uvicorn --fd {fd} --loop asyncio --http h11"
        )
    ),
    Case(ServerConfig("uvicorn --workers 2", "uvicorn --fd {fd} --workers 2")),
    Case(ServerConfig("uvicorn --reload", "uvicorn --fd {fd} --reload")),
    Case(ServerConfig("granian", _GRANIAN)),
    Case(
        ServerConfig("granian --workers 2", _GRANIAN + " --workers 2"),
        started=("Started worker-1", "Started worker-2"),
    ),
    Case(
        ServerConfig(
            "granian, HTTP/2",
            _GRANIAN + " --ssl-certificate {certificate} --ssl-keyfile {key}",
            http2=True,
        )
    ),
    Case(ServerConfig("daphne", "daphne --fd {fd}")),
    Case(
        ServerConfig(
            "daphne, HTTP/2",
            "daphne --endpoint ssl:{port}:privateKey={key}:certKey={certificate}",
            http2=True,
        )
    ),
    Case(
        ServerConfig("gunicorn -k asgi", _GUNICORN + "asgi"),
        defect="its workers look only once a second",
    ),
    Case(
        ServerConfig(
            "gunicorn -k asgi, HTTP/2",
            _GUNICORN + "asgi" + _TLS + " --http-protocols h2",
            http2=True,
        ),
        defect="its workers look only once a second",
    ),
    Case(
        ServerConfig(
            "gunicorn -k uvicorn_worker",
            _GUNICORN + "uvicorn_worker.UvicornWorker --graceful-timeout 2",
        ),
        defect="at SIGINT to its main process alone it waits to be killed",
    ),
]

CONFIGS = {case.name: case.config for case in CASES}


@dataclass(frozen=True)
class Reload:
    """
    A server that starts its application anew when a file in its folder changes.
    """

    config: ServerConfig
    #: What it prints when it serves, and when it has noticed a change.
    serves: str
    notices: str = ""

    def change(self, server: Server, file: Path) -> str:
        """
        Change a file until the server has noticed, and return what it has printed.
        """
        while True:
            with file.open("a") as end:
                end.write("\n")
            # What changes while it does not look, it does not notice.
            with suppress(TimeoutError):
                return server.take_output(until=self.notices, timeout=1)


RELOADS = {
    reload.config.name: reload
    for reload in (
        Reload(CONFIGS["uvicorn --reload"], "Application startup complete", "detected changes"),
        Reload(
            ServerConfig("hypercorn --reload", "hypercorn --bind fd://{fd} --reload"), "Running on"
        ),
    )
}
