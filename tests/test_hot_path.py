import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_nothing_costs_more_than_it_did() -> None:
    """
    What the interpreter does is counted, not how long it takes.
    """
    # In a process of its own, and not traced: what counts is counted there.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")
    }
    guard = subprocess.run(
        [sys.executable, "-m", "benchmarks.guard"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert guard.returncode == 0, guard.stdout + guard.stderr
