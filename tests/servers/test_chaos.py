"""
Nobody loses or doubles an event, whatever is killed.
"""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest

from chaos import ENGINES, every_way, run


@pytest.mark.parametrize("name", ENGINES)
def test_nobody_loses_or_doubles_an_event_whatever_is_killed(name: str) -> None:
    # Not tmp_path, which may be longer than the path of a socket may be.
    with TemporaryDirectory() as folder:
        engine = ENGINES[name](Path(folder))
        report = anyio.run(lambda: run(engine, every_way))

    wrong = ("lost", "doubled", "disordered", "resets", "given_up")
    assert {what: asdict(report)[what] for what in wrong} == dict.fromkeys(wrong, 0), report
    # It was worth it: at last all workers were killed together.
    assert report.reconnects >= report.clients == 200
    assert (report.workers_killed, report.engines_killed) == (8, 2)
    assert report.acknowledged > 100
