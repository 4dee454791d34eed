import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_sse._demo.target import TargetError, load_target
from demo_asgi import ask

MODULE = """
from asgi_sse import event_stream

async def generator():
    yield "generator"

async def async_generator(request):
    yield f"async generator for {request.method}"

async def setup():
    return ["set up"]

again = ["list"]

@event_stream
async def stream():
    yield "stream"

class App:
    async def __call__(self, scope, receive, send):
        await stream(scope, receive, send)

app = App()
function_app = stream.__call__
flexible = lambda *args: ["flexible"]
number = 3

class Rooms:
    class kitchen:
        @staticmethod
        async def events():
            yield "kitchen"
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    A module ``served`` in the current directory, which is not on the path yet.
    """
    (tmp_path / "served.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import no_such_thing\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "01_served.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    for name in ("served", "broken", "pack", "pack.01_served"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("target", "data"),
    [
        ("served:generator", "generator"),
        ("served:async_generator", "async generator for GET"),
        ("served:setup", "set up"),
        ("served:again", "list"),
        ("served:stream", "stream"),
        ("served:app", "stream"),
        ("served:function_app", "stream"),
        ("served:flexible", "flexible"),
        ("served:Rooms.kitchen.events", "kitchen"),
        ("pack.01_served:generator", "generator"),
    ],
)
async def test_target_becomes_an_event_stream(target: str, data: str) -> None:
    answer = await ask(load_target(target))

    assert answer.body.endswith(f"\n\ndata: {data}\n\n".encode())


async def test_options_are_for_the_stream_that_is_made() -> None:
    answer = await ask(load_target("served:generator", retry=5))

    assert b"retry: 5\n" in answer.body


@pytest.mark.parametrize("target", ["served:stream", "served:app"])
def test_options_are_refused_for_what_has_its_own(target: str) -> None:
    with pytest.raises(TargetError, match=f"^{target} is an application.* its own keep_alive and"):
        load_target(target, keep_alive=1, retry=1)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("served", r"TARGET must be module:name or - \(got 'served'\)"),
        ("served:", "TARGET must be module:name"),
        (":stream", "TARGET must be module:name"),
        ("served.py:stream", r"TARGET must name a module, .* \(got 'served.py'\)"),
        ("pack/served:stream", "TARGET must name a module"),
        (".served:stream", "TARGET must name a module"),
        ("missing:stream", "missing:stream cannot be imported: No module named 'missing'"),
        ("broken:stream", "broken:stream cannot be imported: No module named 'no_such_thing'"),
        ("served:nothing", "served:nothing is not there: module 'served' has no attribute"),
        ("served:Rooms.cellar", "served:Rooms.cellar is not there: .* no attribute 'cellar'"),
        ("served:number", "served:number cannot be served: source must be"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_sentence(target: str, message: str) -> None:
    with pytest.raises(TargetError, match=f"^{message}") as raised:
        load_target(target)

    assert "\n" not in str(raised.value)
