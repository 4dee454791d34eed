"""
What every test stands on: two event loops, one clock that jumps, no silent skips.
"""

import os
from collections.abc import Generator
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from asgi_sse.testing import autojump_backend

# A skip says "this machine cannot"; in CI the machine must. What no machine
# could do says so at the beginning of its reason.
ALLOWED_SKIP = "not on this Python: "

uvloop = pytest.param(
    "asyncio+uvloop",
    marks=pytest.mark.skipif(find_spec("uvloop") is None, reason="needs uvloop"),
)

# In CI hypothesis is deterministic by itself: a property that fails only on some days
# should not stop an unrelated change.
settings.register_profile(
    "asgi_sse",
    # The machine may be busy, and that is no fault of the code.
    deadline=None,
    # Every example of a test runs on the same event loop and clock, which is fine.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("asgi_sse")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    Run every async test on asyncio and on trio, unless it chooses for itself.

    It does with ``parametrize("anyio_backend", ["trio"], indirect=True)``.
    """
    if "anyio_backend" not in metafunc.fixturenames:
        return
    if any(
        "anyio_backend" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")
    ):
        return
    if metafunc.definition.get_closest_marker("real_time"):
        backends = ["asyncio", uvloop, "trio"]
    else:
        backends = ["asyncio", "trio"]
    metafunc.parametrize("anyio_backend", backends, indirect=True)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """
    An event loop for one test: with a clock that jumps, or marked ``real_time``.

    With a clock that jumps ``await anyio.sleep(1)`` lets all others go as far as they can,
    and takes exactly one second; ``wait_all_tasks_blocked()`` takes some on asyncio.
    """
    name, _, loop = request.param.partition("+")
    if request.node.get_closest_marker("real_time"):
        return name, {"use_uvloop": True} if loop else {}
    return autojump_backend(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    refuse_skip(report)
    return report


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """
    Turn a skip into a failure in CI, or a missing tool would look like a success.
    """
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return
    match report.longrepr:
        case (_, _, str(reason)) if not reason.removeprefix("Skipped: ").startswith(ALLOWED_SKIP):
            report.outcome = "failed"
            report.longrepr = f"{reason} (in CI a skip is a failure)"
