"""Who a process is, and whether it has ended: on this machine it is known, of others nothing is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from luban.adapters.process_identity import has_ended, own_identity


def test_we_run() -> None:
    assert own_identity() == own_identity()
    assert not has_ended(own_identity())


def test_a_process_that_was_killed_has_ended_even_before_anybody_asked_after_it() -> None:
    code = "from luban.adapters.process_identity import own_identity; print(own_identity(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        identity = process.stdout.readline().strip()
        assert not has_ended(identity)
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(identity)
    assert has_ended(identity)


@pytest.mark.parametrize("identity", ["", "luban-operator-7d9f", "host_uuid", "host_b.1.x.2", "../../etc_b.1.2.3"])
def test_of_strangers_nothing_is_known(identity: str) -> None:
    assert not has_ended(identity)


def proc(folder: Path, boot: str = "aaaa-1", state: str = "S", start: int = 777, name: str = "luban") -> Path:
    """A /proc in which process 42 runs."""
    (folder / "sys/kernel/random").mkdir(parents=True)
    (folder / "sys/kernel/random/boot_id").write_text(f"{boot}\n")
    (folder / "self/ns").mkdir(parents=True)
    (folder / "self/ns/pid").touch()
    for pid in (42, os.getpid()):
        (folder / str(pid)).mkdir()
        rest = " ".join(["0"] * 18)
        (folder / str(pid) / "stat").write_text(f"{pid} ({name}) {state} {rest} {start} 0\n")
    return folder


def identity_of(folder: Path, pid: int = 42, start: int = 777, boot: str = "aaaa-1") -> str:
    return f"any_host_{boot}.{(folder / 'self/ns/pid').stat().st_ino}.{pid}.{start}"


def test_by_its_number_and_start(tmp_path: Path) -> None:
    folder = proc(tmp_path, name="a) Z 1 (b")
    assert not has_ended(identity_of(folder), folder)
    assert has_ended(identity_of(folder, start=1), folder), "another process has its number now"
    assert has_ended(identity_of(folder, pid=2**22 + 1), folder)


def test_a_zombie_has_ended(tmp_path: Path) -> None:
    folder = proc(tmp_path, state="Z")
    assert has_ended(identity_of(folder), folder)


def test_another_boot_or_container_may_still_run(tmp_path: Path) -> None:
    folder = proc(tmp_path)
    assert not has_ended(identity_of(folder, pid=2**22 + 1, boot="bbbb-2"), folder)
    inode = (folder / "self/ns/pid").stat().st_ino
    assert not has_ended(identity_of(folder, pid=2**22 + 1).replace(f".{inode}.", f".{inode + 1}."), folder)


def test_one_that_proc_hides_from_us_may_still_run(tmp_path: Path) -> None:
    folder = proc(tmp_path)
    (folder / str(os.getppid())).mkdir()
    assert not has_ended(identity_of(folder, pid=os.getppid()), folder)
