from pathlib import Path

import pytest

from asgi_sse._demo.counters import read_counters, read_levels

LINUX = {
    "loadavg": "0.42 0.22 0.12 1/87 9021\n",
    "meminfo": "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\n",
    "stat": "cpu  100 20 30 400 50 6 7 8 90 9\ncpu0 100 20 30 400 50 6 7 8 90 9\nintr 1 2 3\n",
    "net/dev": """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs
    lo: 9999 29 0 0 0 0 0 0 9999 29 0 0 0 0 0 0
  eth0:1000 8 0 0 0 0 0 0 100 7 0 0 0 0 0 0
 wlan0: 2000 8 0 0 0 0 0 0 200 7 0 0 0 0 0 0
""",
    "diskstats": """\
   7       0 loop0 1 1 99 1 1 1 99 1 0 0 0 0 0 0 0 0 0
 259       0 nvme0n1 1 1 4 1 1 1 6 1 0 0 0 0 0 0 0 0 0
 259       1 nvme0n1p1 1 1 99 1 1 1 99 1 0 0 0 0 0 0 0 0 0
   8       0 sda 1 1 10 1 1 1 20 1 0 0 0
   8       1 sda1 1 1 99 1 1 1 99 1 0 0 0
 253       0 dm-0 1 1 99 1 1 1 99 1 0 0 0
""",
}


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    (tmp_path / "net").mkdir()
    for name, text in LINUX.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_levels_of_linux(linux: Path) -> None:
    assert read_levels(linux) == {
        "load": {"one": 0.42, "five": 0.22, "fifteen": 0.12},
        "memory": {"used_bytes": 400 * 1024},
    }


def test_counters_of_linux(linux: Path) -> None:
    assert read_counters(linux) == {
        # Guest time is in the first eight already; waiting for a disk is idleness.
        "idle": 450,
        "total": 621,
        # Not the loopback.
        "received": 3000,
        "sent": 300,
        # Disks, not what is on or above them. A sector is 512 bytes.
        "read": 14 * 512,
        "written": 26 * 512,
    }


def test_system_without_proc_tells_what_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1.234, 2.0, 3.0), raising=False)

    assert read_levels(tmp_path) == {"load": {"one": 1.23, "five": 2.0, "fifteen": 3.0}}

    before, after = read_counters(tmp_path), read_counters(tmp_path)

    assert before.keys() == {"idle", "total"}
    assert after["total"] > before["total"]


def test_system_without_load_averages_tells_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.getloadavg", raising=False)

    assert read_levels(tmp_path) == {}


def test_network_of_a_loopback_alone_is_not_told(linux: Path) -> None:
    (linux / "net/dev").write_text("\n".join(LINUX["net/dev"].splitlines()[:3]))

    assert "received" not in read_counters(linux)
