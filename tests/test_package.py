"""
The house itself: which room may know which, and what a visitor finds.
"""

import ast
import configparser
import doctest
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from importlib.resources import files
from pathlib import Path

import pytest

import asgi_sse

ROOT = Path(__file__).parent.parent

# Each module imports only from those above it.
FLOORS = [
    "_json",
    "_event",
    "parser",
    "_headers",
    "_request",
    "_finish",
    "_accept",
    "_compress",
    "_answer",
    "_origins",
    "_limiter",
    "_item",
    "_options",
    "_runtime",
    "_servers",
    "_body",
    "_refusal",
    "_source",
    "_term",
    "_revalidation",
    "_watch",
    "_statistics",
    "_shutdown",
    "_pump",
    "_words",
    "_response",
    "_door",
    "_stream",
    "channels",
    "__init__",
    "testing",
    "starlette",
    "fastapi",
    "opentelemetry",
    "hypercorn",
    "_demo",
    "_hub",
    "__main__",
]
# Up to here the standard library is enough.
LAST_WITHOUT_ANYIO = "_options"
# A file may import what carries its name, and this.
GUESTS = {
    "_runtime._trio": {"anyio", "trio"},
    "testing": {"anyio", "pytest", "trio"},
    "channels._nats": {"anyio", "nats"},
    "channels._redis": {"anyio", "redis"},
    "testing._cli": {"hypercorn"},
    "fastapi": {"anyio", "pydantic", "pydantic_core", "starlette"},
}

# Of every Python that is supported; what only a later one has is imported there only.
STDLIB = sys.stdlib_module_names | {"annotationlib"}

MODULES = sorted(
    {"asgi_sse"} | {m.name for m in pkgutil.walk_packages(asgi_sse.__path__, "asgi_sse.")}
)
PACKAGES = {m.name for m in pkgutil.iter_modules(asgi_sse.__path__) if m.ispkg}
PUBLIC = [name for name in MODULES if not any(part[0] == "_" for part in name.split(".")[1:])]


def floor(module: str) -> str:
    """
    Return where a module of the library lives: ``channels`` for ``asgi_sse.channels.redis``.
    """
    return [*module.split("."), "__init__"][1]


def imports(module: str) -> Iterator[str]:
    """
    Yield the name of each module that a module imports, wherever it does.
    """
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    package = spec.name if spec.submodule_search_locations else spec.name.rpartition(".")[0]
    for node in ast.walk(ast.parse(Path(spec.origin).read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in MODULES else base


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_up(module: str) -> None:
    here = floor(module)
    above = set(FLOORS[: FLOORS.index(here)])
    if here in PACKAGES:
        above |= {here}
    if here == "channels":
        # The engine and the channels never import each other.
        above -= {"_pump", "_words", "_response", "_stream"}

    used = {floor(name) for name in imports(module) if name.split(".")[0] == "asgi_sse"}

    assert used <= above


@pytest.mark.parametrize("module", MODULES)
def test_each_framework_is_imported_only_in_its_own_file(module: str) -> None:
    here = floor(module)
    allowed = {"asgi_sse", "asgiref", module.rpartition(".")[2]} | GUESTS.get(here, {"anyio"})
    allowed |= GUESTS.get(module.partition(".")[2], set())
    if FLOORS.index(here) <= FLOORS.index(LAST_WITHOUT_ANYIO):
        allowed -= {"anyio"}

    used = {name.split(".")[0] for name in imports(module)} - STDLIB

    assert used <= allowed


def test_import_brings_nothing_but_anyio() -> None:
    # What anyio imports is anyio's business; what we add to it is ours.
    code = """
import sys
import anyio, anyio.abc, anyio.from_thread, anyio.lowlevel, anyio.to_thread
before = set(sys.modules)
import asgi_sse
print(*sorted(set(sys.modules) - before))
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    added = set(run.stdout.split())

    assert {name.split(".")[0] for name in added} - STDLIB <= {
        "asgi_sse",
        "anyio",
    }
    assert "asyncio" not in added


def test_import_starts_nothing() -> None:
    code = """
import threading, signal
handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
import asgi_sse
assert threading.active_count() == 1
assert handlers == {number: signal.getsignal(number) for number in signal.valid_signals()}
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", MODULES)
def test_each_module_says_what_it_is(module: str) -> None:
    assert importlib.import_module(module).__doc__


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_exist_and_are_documented(module: str) -> None:
    room = importlib.import_module(module)
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.rst"))

    assert room.__all__ == sorted(room.__all__)
    for name in room.__all__:
        if not name.startswith("__"):
            assert getattr(room, name).__doc__, name
            assert f"{module}.{name}" in pages


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module: str) -> None:
    room = importlib.import_module(module)

    assert doctest.testmod(room, optionflags=doctest.ELLIPSIS).failed == 0


def test_py_typed_is_shipped() -> None:
    assert (files("asgi_sse") / "py.typed").is_file()


def test_version_is_the_same_everywhere() -> None:
    assert metadata("asgi-sse")["Version"] == asgi_sse.__version__
    assert asgi_sse.__version__ in (ROOT / "CHANGELOG.rst").read_text()


def test_readme_runs_the_tests_in_one_line() -> None:
    command = "python3 -m venv .venv && .venv/bin/pip install -q tox && .venv/bin/tox"

    assert command in [
        line.strip().removeprefix("$ ") for line in (ROOT / "README.rst").read_text().splitlines()
    ]


def test_lowest_dependencies_are_those_promised() -> None:
    setup, tox = configparser.ConfigParser(), configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    tox.read(ROOT / "tox.ini")
    promised = setup["options"]["install_requires"].split()
    tested = tox["testenv:lowest"]["deps"].split()

    assert [need.replace(">=", "==") + ".0" for need in promised] == tested
