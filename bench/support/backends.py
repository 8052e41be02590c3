"""Web servers in a process of their own, so that they do not share the load generator's event loop.

Commands on standard input, one a line, each answered by one line: `start NAME ADDRESS PORT`, `stop NAME`,
`active NAME` (answers the number of requests being served).
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import TracebackType

from tests.fakes.web import Backend

ROOT = Path(__file__).resolve().parent.parent.parent


class Backends:
    """The process, seen from outside."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Backends:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.support.backends",
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()

    async def ask(self, *words: object) -> int:
        """Send a command; its answer. Raises RuntimeError if the process is gone."""
        if self._process is None or self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the backends do not run")
        self._process.stdin.write(" ".join(str(word) for word in words).encode() + b"\n")
        answer = await self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the backends ended at {words}")
        return int(answer)


async def _obey(backends: dict[str, Backend], words: list[str]) -> int:
    match words:
        case ["start", name, address, port]:
            backends[name] = await Backend(name, address, int(port)).start()
        case ["stop", name]:
            await backends.pop(name).stop()
        case ["active", name]:
            return backends[name].active
        case _:
            raise ValueError(f"no such command: {words}")
    return 0


async def _main() -> None:
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    backends: dict[str, Backend] = {}
    while line := await commands.readline():
        sys.stdout.write(f"{await _obey(backends, line.decode().split())}\n")
        sys.stdout.flush()
    for backend in backends.values():
        await backend.stop()


if __name__ == "__main__":
    asyncio.run(_main())
