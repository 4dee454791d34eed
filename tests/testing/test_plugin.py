"""
What the pytest plugin gives to a project that installs the library.
"""

import shutil
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from asgi_sse import ServerSentEvent
from asgi_sse.testing import Chunk, plugin

pytest_plugins = ["pytester"]


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project that has the plugin and its own apps."""
    shutil.copy(Path(__file__).with_name("bare.py"), pytester.path)
    pytester.makeini("[pytest]\nanyio_mode = auto\nfilterwarnings = error")
    return pytester


# The entry point is there only if the library is installed.
INSTALLED = bool(entry_points(group="pytest11", name="asgi_sse"))


def run(project: pytest.Pytester) -> pytest.RunResult:
    """Run the project's tests, with the plugin if it has not come by itself."""
    return project.runpytest_inprocess(plugins=[] if INSTALLED else [plugin])


def test_autojump(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import time

        import anyio
        import pytest

        @pytest.fixture
        async def an_hour_later():
            await anyio.sleep(3600)
            yield anyio.current_time()
            await anyio.sleep(3600)

        async def test_keep_alives(autojump, an_hour_later):
            await anyio.sleep(3600)
            assert anyio.current_time() == an_hour_later + 3600

        @pytest.mark.parametrize("anyio_backend", [("asyncio", {"debug": True}), "trio"])
        async def test_with_a_backend_of_its_own(autojump, anyio_backend_name):
            await anyio.sleep(3600)

        async def test_real_time():
            began = time.monotonic()
            await anyio.sleep(0.1)
            assert time.monotonic() - began > 0.09
        """
    )
    run(project).assert_outcomes(passed=6)


def test_autojump_that_comes_too_late(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.fixture
        async def real():
            return 1

        async def test_keep_alives(real, autojump):
            pass

        @pytest.fixture
        async def open():
            yield

        async def test_another(open, autojump):
            pass
        """
    )
    result = run(project)

    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*Did you forget to name autojump before the async fixtures?"])


def test_sse_connect(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        from bare import clock

        def test_clock(sse_connect):
            one, two = sse_connect(clock), sse_connect(clock, "/", last_event_id="7")
            assert one.next_event().id == "1"
            assert two.next_event().id == "8"

        def test_real_time(sse_connect):
            assert sse_connect(clock, autojump=False).next_event().id == "1"
        """
    )
    run(project).assert_outcomes(passed=2)


def test_differences_are_shown(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        from asgi_sse import ServerSentEvent

        def test_events():
            got = [ServerSentEvent("a"), ServerSentEvent("b", id=2), ServerSentEvent("c")]
            assert got == [ServerSentEvent("a"), ServerSentEvent("b", id=3)]
        """
    )
    result = run(project)

    result.stdout.fnmatch_lines(
        [
            "E*assert the lists differ (got 3, expected 2; - expected, + got)",
            "E*  ?0? data='a'",
            "E*- ?1? id='3', data='b'",
            "E*+ ?1? id='2', data='b'",
            "E*+ ?2? data='c'",
        ]
    )


@pytest.mark.parametrize(
    ("got", "expected", "lines"),
    [
        pytest.param(
            ServerSentEvent("a", id=1, event="x"),
            ServerSentEvent("a", id=2),
            [
                "the events differ (- expected, + got)",
                "- event=None",
                "+ event='x'",
                "- id='2'",
                "+ id='1'",
                "  data='a'",
            ],
            id="event",
        ),
        pytest.param(
            [Chunk(0, b":\n"), Chunk(15, b":\n")],
            [(0, b":\n"), (16, b":\n"), "end"],
            [
                "the lists differ (got 2, expected 3; - expected, + got)",
                "  [0] at 0 s: b':\\n'",
                "- [1] at 16 s: b':\\n'",
                "+ [1] at 15 s: b':\\n'",
                "- [2] 'end'",
            ],
            id="chunks",
        ),
        pytest.param([], [1], None, id="not-ours"),
        pytest.param("a", "b", None, id="no-list"),
        pytest.param(Chunk(0, b""), Chunk(0, b"x"), None, id="one-chunk"),
    ],
)
def test_differences(got: object, expected: object, lines: list[str] | None) -> None:
    assert plugin.pytest_assertrepr_compare("==", got, expected) == lines
    assert plugin.pytest_assertrepr_compare("!=", got, expected) is None


def test_the_plugin_loads_little(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import sys

        def test_modules():
            loaded = {name for name in sys.modules if name.startswith("asgi_sse.testing.")}
            assert loaded == {"asgi_sse.testing.plugin"}
        """
    )
    # In a process of its own, where nobody else has loaded anything.
    options = [] if INSTALLED else ["-p", "asgi_sse.testing.plugin"]
    project.runpytest_subprocess(*options).assert_outcomes(passed=1)


def test_the_front_door_knows_its_rooms() -> None:
    from asgi_sse import testing

    assert all(getattr(testing, name) for name in testing.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = testing.nothing
    assert sys.modules["asgi_sse.testing"] is testing
