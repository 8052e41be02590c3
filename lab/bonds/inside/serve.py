"""PID 1 of the bond guest: does what the host asks for over a virtio-serial port. Standard library alone.

One JSON object a line in both directions. Requests carry `id` and `op`; the answer carries the same `id` and either the
result's fields or `error`. Programs started by `spawn` send each line that they print as it comes. Operations:

* `clock` -> `at`: CLOCK_MONOTONIC in nanoseconds
* `run` argv, stdin, timeout (s), netns, user, env -> code, stdout, stderr
* `spawn` argv, netns, user, env -> pid; then `{"pid", "line"}` for each line and `{"pid", "code"}` at its end
* `kill` pid, signal
* `put` path, content (base64), mode, user

When the host closes the port, the guest ends: no QEMU outlives the program that started it.
"""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

PORT = "luban.rpc"
FIND_SECONDS = 20.0
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",  # noqa: S108 - the guest has nobody else
    "LANG": "C.UTF-8",
    "PYTHONPATH": "/run/luban:/opt/luban",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}


def find_port() -> str:
    """The device of the port that the host named PORT. The driver announces it some time after it was loaded."""
    deadline = time.monotonic() + FIND_SECONDS
    while time.monotonic() < deadline:
        for name in Path("/sys/class/virtio-ports").glob("*/name"):
            if name.read_text().strip() == PORT:
                return f"/dev/{name.parent.name}"
        time.sleep(0.01)
    raise TimeoutError(f"no virtio-serial port {PORT}")


class Server:
    """Answers requests; each that can take long gets a thread."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.lock = threading.Lock()
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def send(self, message: dict[str, Any]) -> None:
        """Send one line, whole."""
        data = json.dumps(message).encode() + b"\n"
        with self.lock:
            while data:
                data = data[os.write(self.port, data) :]

    def serve(self) -> None:
        """Answer until the host closes the port."""
        rest = b""
        while block := os.read(self.port, 65536):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                self.take(json.loads(line))

    def take(self, request: dict[str, Any]) -> None:
        """Answer one request, at once or in a thread of its own."""
        if request["op"] == "clock":
            self.send({"id": request["id"], "at": time.monotonic_ns()})
            return
        threading.Thread(target=self.answer, args=(request,), daemon=True).start()

    def answer(self, request: dict[str, Any]) -> None:
        """Do what one request asks for."""
        try:
            result = getattr(self, f"do_{request['op']}")(request)
        except Exception as error:  # noqa: BLE001 - the host gets it
            result = {"error": f"{type(error).__name__}: {error}"}
        self.send({"id": request["id"], **result})

    def do_run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a program to its end."""
        done = subprocess.run(
            command(request),
            input=request.get("stdin", "").encode(),
            capture_output=True,
            timeout=request["timeout"],
            check=False,
            **options(request),
        )
        stdout, stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        return {"code": done.returncode, "stdout": stdout, "stderr": stderr}

    def do_spawn(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start a program whose lines go to the host as they come."""
        process = subprocess.Popen(
            command(request),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **options(request),
        )
        self.processes[process.pid] = process
        threading.Thread(target=self.follow, args=(process,), daemon=True).start()
        return {"pid": process.pid}

    def follow(self, process: "subprocess.Popen[bytes]") -> None:
        """Send what a program prints and how it ended."""
        assert process.stdout is not None
        for line in process.stdout:
            self.send({"pid": process.pid, "line": line.decode(errors="replace").rstrip("\n")})
        self.send({"pid": process.pid, "code": process.wait()})
        del self.processes[process.pid]

    def do_kill(self, request: dict[str, Any]) -> dict[str, Any]:
        """Signal a program of ours, unless it has ended."""
        process = self.processes.get(request["pid"])
        if process is not None:
            process.send_signal(request["signal"])
        return {}

    def do_put(self, request: dict[str, Any]) -> dict[str, Any]:
        """Write a file, below /run or /tmp."""
        path = Path(request["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(request["content"]))
        path.chmod(request["mode"])
        os.chown(path, request["user"], request["user"])
        return {}


def command(request: dict[str, Any]) -> list[str]:
    """The command line, in the network namespace asked for."""
    prefix = ["ip", "netns", "exec", request["netns"]] if request.get("netns") else []
    return [*prefix, *request["argv"]]


def options(request: dict[str, Any]) -> dict[str, Any]:
    """Environment and user of a program. As another user it has no capability."""
    chosen: dict[str, Any] = {"env": {**ENVIRONMENT, **request.get("env", {})}, "cwd": "/"}
    if user := request.get("user"):
        chosen |= {"user": user, "group": user, "extra_groups": []}
    return chosen


def prepare() -> None:
    """What the initrd left to do: loopback, the NIC to the host, the far side's namespace."""
    os.environ.update(ENVIRONMENT)
    lines = ["link set lo up", "addr add 10.0.2.15/24 dev eth0", "link set eth0 up"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    for line in ("netns add far", "-n far link set lo up"):
        subprocess.run(["ip", *line.split()], check=True)


def main() -> None:
    """Serve until the host has gone, then end the guest."""
    try:
        prepare()
        port = os.open(find_port(), os.O_RDWR)
        server = Server(port)
        server.send({"ready": time.monotonic_ns()})
        server.serve()
    except Exception as error:  # noqa: BLE001 - a PID 1 that ends is a kernel panic without a word
        sys.stderr.write(f"bonds: {type(error).__name__}: {error}\n")
        sys.stderr.flush()
    # QEMU runs with -no-reboot: it ends.
    subprocess.run(["/bin/busybox", "reboot", "-f"], check=False)


if __name__ == "__main__":
    main()
