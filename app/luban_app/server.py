"""The program: `python -m luban_app --host 0.0.0.0 --port 8080`."""

from __future__ import annotations

import gc
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from luban_app.frame.middleware import Frame

DEFAULT_PORT = 8080
KEEP_ALIVE_SECONDS = 75
"""Idle connections stay open longer than a balancer keeps them: it never sends on one just closed."""


def _leave(_number: int, _frame: FrameType | None) -> None:
    """uvicorn raises the signal again after it has shut down: being asked to end is not a failure."""
    sys.exit(0)


@dataclass(frozen=True)
class Service:
    """What the service needs besides its address."""

    database_url: str | None
    """Where records are kept; None: in a file of `data_dir`."""
    data_dir: Path
    ruler_length: str
    """In cm."""
    secure_cookie: bool
    experiments: bool
    """Offer /work, which takes time and processor on demand."""


def _application(service: Service, log_level: str) -> Frame:
    """The service under its frame. Raises ValueError, as `serve` does."""
    # Collecting while only imports run finds nothing and costs a tenth of the start.
    gc.disable()
    from luban_app import logs
    from luban_app.frame.identity import vm_name
    from luban_app.frame.routes import create_app
    from luban_app.house import assembly, inputs, ruler
    from luban_app.store.engine import parse_url, sqlite_url

    vm = vm_name()
    logs.configure(vm, log_level)
    ruler_length = inputs.measure("1", service.ruler_length, ruler.DEFAULT_LENGTH_CM).length
    settings = assembly.Settings(
        # The folder last: a start that is refused leaves nothing behind.
        database=parse_url(service.database_url) if service.database_url else sqlite_url(_made(service.data_dir)),
        ruler_length=ruler_length,
        secure_cookie=service.secure_cookie,
    )
    if service.experiments:
        warning = "experiments are on: whoever can reach this service can keep its processor busy through /work"
        logs.get("luban_app.server").warning(warning)
    app = create_app(vm, extension=assembly.build(vm, settings).extension, experiments=service.experiments)
    # What is loaded now stays until the end: it need not be looked through again and again.
    gc.freeze()
    gc.enable()
    return app


def _made(data_dir: Path) -> Path:
    """The data folder, which is there now, as is the database's file in it. Raises ValueError."""
    from luban_app.store.engine import make_file, sqlite_url

    try:
        # Records, and the key that cookies are signed with, are nobody else's.
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = Path(str(sqlite_url(data_dir).database))
        make_file(str(database))
        # One of an earlier version, which everybody could read.
        database.chmod(0o600)
    except OSError as error:
        raise ValueError(f"--data-dir {data_dir}: {error.strerror}") from error
    return data_dir


def serve(host: str, port: int, service: Service, *, grace: int, log_level: str) -> None:
    """Serve until SIGTERM or SIGINT; then finish the requests in flight, for `grace` seconds at most.

    Raises ValueError if the VM's name, the log level, the database's address, the data folder or the ruler's length is
    not usable.
    """
    # Imported here: `--help` and a bad option should not wait for the web framework.
    import uvicorn

    config = uvicorn.Config(
        _application(service, log_level),
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


def _data_dir() -> Path:
    """The user's folder for programs' state, as the XDG rules have it."""
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "luban-app"
    except RuntimeError:
        # Neither HOME nor an entry in passwd.
        return Path("luban-app")


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
@click.option(
    "--database-url",
    envvar="DATABASE_URL",
    show_default=False,
    help="Where records are kept: postgresql://user:password@host/name, which several VMs can share, or "
    "sqlite:///path. Default: a SQLite file in the data folder. Also DATABASE_URL, where no other user sees it.",
)
@click.option(
    "--data-dir",
    envvar="LUBAN_DATA_DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=_data_dir,
    show_default="the user's state folder",
    help="Folder of the SQLite file; made if it is missing. Also LUBAN_DATA_DIR.",
)
@click.option(
    "--ruler-length",
    envvar="LUBAN_RULER_LENGTH",
    default="42.9",
    help="Length of the Luban ruler in cm, 30 to 60, where nobody chooses one. Also LUBAN_RULER_LENGTH.",
)
@click.option(
    "--secure-cookie",
    envvar="LUBAN_SECURE_COOKIE",
    is_flag=True,
    help="Send the session's cookie over https alone, whatever comes in. Set it where browsers come by https: a "
    "balancer in between may not tell. Also LUBAN_SECURE_COOKIE=1.",
)
@click.option(
    "--experiments",
    envvar="LUBAN_EXPERIMENTS",
    is_flag=True,
    help="Offer /work, which takes as much time and processor as it is asked to: a known load for demonstrations and "
    "benchmarks. Never where strangers come. Also LUBAN_EXPERIMENTS=1.",
)
def main(host: str, port: int, grace: int, log_level: str, **options: Any) -> None:
    """Serve the Luban web service. The VM's name comes from LUBAN_VM, else it is the host name."""
    service = Service(**options)
    try:
        serve(host, port, service, grace=grace, log_level=log_level)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
