"""The lab's command: which lab is meant, and what it says of others."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import __main__ as lab_main
from lab import process
from lab.datacentre import DataCentre
from lab.paths import Layout
from lab.process import LabError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where labs keep their state."""
    monkeypatch.setenv("LUBAN_LAB_DIR", str(tmp_path / "labs"))
    monkeypatch.setenv("LUBAN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("LUBAN_LAB_BASE", raising=False)
    (tmp_path / "cache").mkdir()
    return tmp_path / "labs"


@pytest.mark.parametrize(("text", "base"), [(None, 16), ("1", 1), ("40", 40), ("250", 250)])
def test_the_environment_says_which_lab(
    root: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, base: int
) -> None:
    if text is not None:
        monkeypatch.setenv("LUBAN_LAB_BASE", text)
    assert Layout.from_environment() == Layout(base, root / str(base))


UNUSABLE = ["", "abc", "0", "251", "999", "-1", "1.5", " 16", "1_6", "١٦"]


@pytest.mark.parametrize("text", UNUSABLE)
def test_another_base_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LUBAN_LAB_BASE", text)
    with pytest.raises(LabError, match=r"LUBAN_LAB_BASE=.*from 1 to 250"):
        Layout.from_environment()
    assert Layout.from_environment(7).base == 7


@pytest.mark.parametrize("folder", ["/srv/my labs", "/srv/labs'", "/srv/läbs"])
def test_a_folder_that_no_libvirt_uri_can_hold_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("LUBAN_LAB_DIR", folder)
    with pytest.raises(LabError, match="LUBAN_LAB_DIR="):
        Layout.from_environment()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command's exit status."""
    monkeypatch.setattr("sys.argv", ["lab", *arguments])
    with pytest.raises(SystemExit) as ended:
        lab_main.run()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("command", ["up", "down", "destroy", "status"])
def test_the_command_says_it_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setenv("LUBAN_LAB_BASE", "abc")
    assert run(monkeypatch, command) == 1
    assert capsys.readouterr().err.startswith("error LUBAN_LAB_BASE='abc': must be a number from 1 to 250")


def make_lab(root: Path, base: int, start: str | None) -> None:
    """A lab of which one daemon is this process, if `start` is when this process began."""
    record = root / str(base) / "run" / "etcd.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"pid": os.getpid(), "start": start}))


@pytest.mark.parametrize("option", ["--last", "--cache", None])
def test_destroy_names_labs_that_still_run_and_leaves_what_they_need(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str | None
) -> None:
    monkeypatch.setattr(DataCentre, "destroy", lambda _self: None)
    make_lab(root, 16, process._start_ticks(os.getpid()))
    make_lab(root, 40, process._start_ticks(os.getpid()))
    make_lab(root, 60, "long ago")
    assert run(monkeypatch, "destroy", *([option] if option else [])) == (1 if option else 0)
    said = capsys.readouterr().err
    assert "base 40 still runs; LUBAN_LAB_BASE=40 make lab-down" in said
    assert "base 16" not in said
    assert "base 60" not in said
    assert ("stays: .venv and the cache" in said) == bool(option)
    assert (root.parent / "cache").exists()


def test_the_last_lab_goes_with_the_cache(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DataCentre, "destroy", lambda _self: None)
    make_lab(root, 40, "long ago")
    assert run(monkeypatch, "destroy", "--last", "--cache") == 0
    assert capsys.readouterr().err == ""
    assert not (root.parent / "cache").exists()


def test_the_line_for_shells_holds_all_that_they_need() -> None:
    line = lab_main.environment(Path("/srv/lab/admin.kubeconfig"), Path("/srv/my cache/kubernetes/kubectl"))
    assert line == (
        "export KUBECONFIG=/srv/lab/admin.kubeconfig "
        f"PATH='/srv/my cache/kubernetes:{Path(sys.executable).parent}':$PATH"
    )


def test_the_line_for_shells_stands_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl = SimpleNamespace(binaries=SimpleNamespace(kubectl=Path("/cache/[x]/kubectl")))
    monkeypatch.setattr(DataCentre, "control_plane", kubectl)
    lab = lab_main.make_lab(40)
    lab_main.print_addresses(lab)
    lines = capsys.readouterr().err.splitlines()
    assert lab_main.environment(lab.layout.admin_kubeconfig, kubectl.binaries.kubectl) in lines


def test_ctrl_c_is_one_sentence_and_no_traceback(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DataCentre, "down", interrupt)
    assert run(monkeypatch, "down") == lab_main.INTERRUPTED
    said = capsys.readouterr()
    assert (said.out, said.err.strip().count("interrupted: what is up stays")) == ("", 1)
    assert "Aborted" not in said.err


def test_usage_errors_are_told_as_ever(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "fly") == 2
    assert "No such command 'fly'" in capsys.readouterr().err


def test_nothing_is_said_to_be_stopped_where_nothing_runs(root: Path) -> None:
    said: list[str] = []
    DataCentre(Layout.from_environment(40), said.append).down()
    assert said == []


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
