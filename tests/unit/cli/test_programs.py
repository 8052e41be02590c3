"""What the command lines of all programs share: options, the end by a signal, errors in words."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Callable
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from luban.balancer_agent import command as balancer_command
from luban.cli.main import main
from luban.controller import program as controller_program
from luban.errors import PermanentError
from luban.node_agent import command as node_command
from luban.programs import RETURN_SECONDS, option, return_memory, run_program, share_arenas

TAKEN = "cannot listen at 127.0.0.1:9: Address already in use: choose another"


@pytest.fixture(autouse=True)
def logs_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program sets up for its logs would hold for all tests that follow."""
    monkeypatch.setattr("luban.cli.main.configure_logging", lambda **_: None)


@pytest.mark.parametrize(
    ("name", "variable"), [("--proc-root", "LUBAN_NODE_AGENT_PROC_ROOT"), ("--resync", "LUBAN_NODE_AGENT_RESYNC")]
)
def test_an_option_has_its_environment_variable(name: str, variable: str) -> None:
    @click.command()
    @option("node-agent", name, "An option.")
    def command(**given: str) -> None:
        click.echo(next(iter(given.values())))

    assert CliRunner().invoke(command, [], env={variable: "seven"}).output == "seven\n"
    assert variable in CliRunner().invoke(command, ["--help"]).output.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], "Any"), (["--hosts=Registered"], "Registered"), (["--hosts", "registered"], "Registered")],
)
def test_which_hosts_may_be_used(monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str) -> None:
    started: list[controller_program.Options] = []

    async def run(options: controller_program.Options) -> None:
        started.append(options)

    monkeypatch.setattr(controller_program, "run", run)
    assert CliRunner().invoke(main, ["controller", *arguments]).exit_code == 0
    assert [it.hosts for it in started] == [expected]
    assert CliRunner().invoke(main, ["controller", "--hosts=Some"]).exit_code == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_program(number: signal.Signals) -> None:
    ended: list[str] = []

    async def program(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), number)
        await stop.wait()
        ended.append("in its own time")

    run_program(program)
    assert ended == ["in its own time"]


@pytest.mark.parametrize("error", [PermanentError("PortTaken", TAKEN), PermissionError(TAKEN)])
def test_an_error_is_told_in_words(error: Exception) -> None:
    async def program(_stop: asyncio.Event) -> None:
        raise error

    with pytest.raises(click.ClickException, match=TAKEN) as caught:
        run_program(program)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (controller_program, ["controller"]),
        (node_command, ["node-agent", "--node-name", "n"]),
        (
            balancer_command,
            ["balancer-agent", "--cluster", "shop", "--config-dir", "/missing", "--advertise", "http://x"],
        ),
    ],
    ids=["controller", "node-agent", "balancer-agent"],
)
def test_a_port_that_is_taken_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, module: object, arguments: list[str]
) -> None:
    async def fail(*_: Callable[..., object]) -> None:
        raise PermanentError("PortTaken", TAKEN)

    monkeypatch.setattr(module, "run", fail)
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.output) == (1, f"Error: {TAKEN}\n")


def test_threads_share_arenas_where_the_c_library_is_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    glibc = SimpleNamespace(mallopt=lambda name, value: asked.append((name, value)))
    for library in (glibc, SimpleNamespace()):
        monkeypatch.setattr(ctypes, "CDLL", lambda _name, it=library: it)
        share_arenas()
    assert asked == [(-8, 2)]


@pytest.mark.looptime(end=600)
async def test_free_memory_goes_back_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace(malloc_trim=asked.append))
    returning = asyncio.ensure_future(return_memory())
    await asyncio.sleep(2.5 * RETURN_SECONDS)
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace())
    await asyncio.sleep(RETURN_SECONDS)
    assert asked == [0, 0]
    assert not returning.done(), "where there is no such call nothing happens"
    returning.cancel()
