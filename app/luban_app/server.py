"""The program: `python -m luban_app --host 0.0.0.0 --port 8080`."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import click

DEFAULT_PORT = 8080
KEEP_ALIVE_SECONDS = 75
"""Idle connections stay open longer than a balancer keeps them: it never sends on one just closed."""


def _leave(_number: int, _frame: FrameType | None) -> None:
    """uvicorn raises the signal again after it has shut down: being asked to end is not a failure."""
    sys.exit(0)


def serve(host: str, port: int, *, grace: int, log_level: str) -> None:
    """Serve until SIGTERM or SIGINT; then finish the requests in flight, for `grace` seconds at most.

    Raises ValueError if the VM's name or the log level is not usable.
    """
    # Imported here: `--help` and a bad option should not wait for the web framework.
    import uvicorn

    from luban_app import logs
    from luban_app.application import create_app
    from luban_app.identity import vm_name

    vm = vm_name()
    logs.configure(vm, log_level)
    config = uvicorn.Config(
        create_app(vm),
        host=host,
        port=port,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=grace,
    )
    signal.signal(signal.SIGTERM, _leave)
    uvicorn.Server(config).run()


@click.command(context_settings={"show_default": True})
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", default=DEFAULT_PORT, type=click.IntRange(0, 65535), help="Port to listen on; 0: any.")
@click.option("--grace", default=5, type=click.IntRange(0, 300), help="Seconds for requests in flight at the end.")
@click.option(
    "--log-level",
    default="info",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Least level logged.",
)
def main(host: str, port: int, grace: int, log_level: str) -> None:
    """Serve the Luban web service. The VM's name comes from LUBAN_VM, else it is the host name."""
    try:
        serve(host, port, grace=grace, log_level=log_level)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
