"""
The command line: which cases to run, and how thoroughly.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

from . import report
from .cases import CASES, Options
from .contestants import CONTESTANTS, FLOOR, PEERS
from .servers import split_cores


def main() -> None:
    """
    Run the cases that were asked for; write the page if that was all of them.
    """
    arguments = parse_arguments()
    # As many connections as the machine allows.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cores, _ = split_cores()
    os.sched_setaffinity(0, cores)
    install_node_peers()

    only = frozenset([FLOOR, *arguments.only]) if arguments.only else None
    rounds = arguments.rounds or (2 if arguments.quick else 5)
    options = Options(rounds=rounds, quick=arguments.quick, only=only)
    about = report.machine()
    for name, value in about:
        print(f"{name}: {value}")
    print(", ".join(f"{name} {version}" for name, version in report.versions()))
    # Not without stopping the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    began = time.monotonic()
    results = []
    for name in arguments.cases or CASES:
        case_began = time.monotonic()
        result = CASES[name].run(options)
        results.append((CASES[name], result))
        report.print_result(CASES[name], result)
        print(f"({time.monotonic() - case_began:.0f} s)", flush=True)
    if arguments.page or not (arguments.cases or arguments.quick or only):
        minutes = (time.monotonic() - began) / 60
        report.write_page(results, about, minutes, quick=arguments.quick)
        print(f"\nwritten: {report.PAGE}")


def parse_arguments() -> argparse.Namespace:
    """
    Return what the command line asks for.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--quick", action="store_true", help="small loads, few rounds, no page")
    parser.add_argument("--rounds", type=int, help="5, or 2 if quick")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="besides the hand-written loop; repeatable"
    )
    parser.add_argument("--page", action="store_true", help="write RESULTS.rst in any case")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - CASES.keys():
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if unknown := set(arguments.only or ()) - CONTESTANTS.keys():
        known = ", ".join(CONTESTANTS)
        parser.error(f"no such contestant: {', '.join(sorted(unknown))} (there are {known})")
    return arguments


def install_node_peers() -> None:
    """
    Fetch better-sse, where there is npm and it has not been done.
    """
    npm = shutil.which("npm")
    if npm is None or (PEERS / "node_modules").is_dir():
        return
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(PEERS)]
    if subprocess.run(command, capture_output=True, check=False, timeout=120).returncode:
        print("better-sse could not be installed with npm", file=sys.stderr)


if __name__ == "__main__":
    main()
