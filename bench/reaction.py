"""How fast the cluster grows: threshold crossed -> decision -> first request served by the new, cold VM.

Baseline: the same guest on the same host under the same load, from `virsh start` to its first answer. Both are asked
every POLL_SECONDS for an answer that takes no time, ours through httpd; in turn in one run of the lab. What is asked of
httpd is answered by VMs that have no time to spare, so it is asked all the same while the plain guest starts.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from datetime import datetime
from statistics import median
from xml.etree import ElementTree

from bench.result import Result, say, spread
from lab.datacentre import CLUSTER, NAMESPACE, DataCentre
from lab.demo.load import Load
from lab.paths import Layout
from lab.process import LabError

BASE = 112
RUNS = 5
HOLD_SECONDS = 3.0
PEAK_USERS, CALM_USERS = 140, 6
FULL_SHARE = 0.9
"""So many of the users wait for an answer at the same time, once all are there."""
DEADLINE = 180.0
POLL_SECONDS = 0.05
HOST = "host-c"
NOBODY = "nobody"
"""No VM has this name: who waits for its answer asks until he is told to stop."""


async def until(condition: object, what: str) -> None:
    """Poll `condition` in a thread until it holds. Raises LabError naming `what`."""
    end = time.monotonic() + DEADLINE
    while not await asyncio.to_thread(condition):  # type: ignore[arg-type]
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {DEADLINE:g} s")
        await asyncio.sleep(POLL_SECONDS)


def status(lab: DataCentre) -> dict[str, object]:
    """The cluster's status."""
    text = lab.kubectl("-n", NAMESPACE, "get", "lubancluster", CLUSTER, "-o", "json")
    return dict(json.loads(text).get("status", {}))


def serving(lab: DataCentre) -> int:
    """VMs that serve."""
    return int(status(lab).get("vms", {}).get("serving", 0))  # type: ignore[attr-defined]


def names(lab: DataCentre) -> set[str]:
    """Names of the cluster's VMs."""
    text = lab.kubectl("-n", NAMESPACE, "get", "lubanvms", "-o", "jsonpath={.items[*].metadata.name}")
    return set(text.split())


def settled(lab: DataCentre, count: int) -> bool:
    """Whether exactly so many VMs are there, and all serve."""
    vms = json.loads(lab.kubectl("-n", NAMESPACE, "get", "lubanvms", "-o", "json"))["items"]
    return len(vms) == count and serving(lab) == count


def decided_at(lab: DataCentre) -> float | None:
    """When the operator last decided to scale up, in seconds since the epoch; None: never. From its log, for the status
    has whole seconds."""
    for line in reversed(lab.operator.log.read_text().splitlines()):
        if '"event": "decided"' in line and '"verdict": "ScaleUp"' in line:
            return datetime.fromisoformat(json.loads(line)["timestamp"].replace("Z", "+00:00")).timestamp()
    return None


def answering_vm(lab: DataCentre) -> str:
    """Name of the VM that answers a request through httpd; empty: none does."""
    try:
        with urllib.request.urlopen(f"{lab.addresses.service}/healthz", timeout=1) as answer:  # noqa: S310 - our own
            return str(answer.headers.get("X-Luban-VM", ""))
    except OSError:
        return ""


async def grow_once(lab: DataCentre, load: Load) -> tuple[float, float]:
    """Seconds from peak to decision, and from decision to the new VM's first answer."""
    before, known = decided_at(lab), names(lab)
    crossed = time.time()
    await load.set_users(PEAK_USERS)
    await until(lambda: decided_at(lab) not in (None, before), "decision to grow")
    decided = decided_at(lab) or 0.0
    await until(lambda: answering_vm(lab) not in {"", *known}, "first answer of the new VM")
    first = time.time()
    await until(lambda: settled(lab, 3), "three VMs serve")
    return decided - crossed, first - decided


async def shrink(lab: DataCentre, load: Load) -> None:
    """Back to two VMs."""
    await load.set_users(CALM_USERS)
    await until(lambda: settled(lab, 2), "two VMs are left")


class PlainGuest:
    """A copy of a managed VM's domain, started with virsh alone."""

    def __init__(self, lab: DataCentre) -> None:
        self.uri = lab.hosts.uris()[HOST]
        self.address = f"127.0.{lab.layout.base + 2}.250"
        self.uuid = str(uuid.uuid4())
        self.volume = f"bench-{self.uuid}.qcow2"

    def virsh(self, *arguments: str) -> str:
        """Run virsh on the host. Raises CalledProcessError."""
        command = ["virsh", "-q", "-c", self.uri, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def define(self) -> None:
        """Copy the definition of a running VM, with an overlay, a name and a forward of its own."""
        model = self.virsh("list", "--uuid").split()[0]
        self.virsh(
            "vol-create-as", "default", self.volume, "8G", "--format", "qcow2",
            "--backing-vol", "luban-web.qcow2", "--backing-vol-format", "qcow2",
        )  # fmt: skip
        xml = self._rewrite(ElementTree.fromstring(self.virsh("dumpxml", "--inactive", model)))  # noqa: S314 - our own
        subprocess.run(
            ["virsh", "-q", "-c", self.uri, "define", "/dev/stdin"], input=xml, text=True, check=True, timeout=60
        )

    def _rewrite(self, domain: ElementTree.Element) -> str:
        path = self.virsh("vol-path", "--pool", "default", self.volume).strip()
        for tag, text in (("uuid", self.uuid), ("name", f"bench-{self.uuid}")):
            element = domain.find(tag)
            if element is not None:
                element.text = text
        for element in list(domain.findall("metadata")):
            domain.remove(element)
        source = domain.find("devices/disk[@device='disk']/source")
        if source is not None:
            source.set("file", path)
        text = ElementTree.tostring(domain, encoding="unicode")
        old = text.split("hostfwd=tcp:")[1].split(":")[0]
        return text.replace(f"hostfwd=tcp:{old}:", f"hostfwd=tcp:{self.address}:")

    def start(self) -> float:
        """Seconds from `virsh start` to the first answer."""
        begun = time.monotonic()
        self.virsh("start", self.uuid)
        while time.monotonic() - begun < DEADLINE:
            try:
                with urllib.request.urlopen(f"http://{self.address}:8080/healthz", timeout=1) as answer:
                    if answer.status == 200:
                        return time.monotonic() - begun
            except (urllib.error.URLError, OSError):
                time.sleep(POLL_SECONDS)
        raise LabError("the plain guest did not answer")

    def remove(self) -> None:
        """Leave nothing behind."""
        for command in (
            ("destroy", self.uuid),
            ("undefine", self.uuid),
            ("vol-delete", "--pool", "default", self.volume),
        ):
            subprocess.run(["virsh", "-q", "-c", self.uri, *command], capture_output=True, check=False, timeout=60)


async def plain_once(lab: DataCentre, load: Load) -> float:
    """Seconds from `virsh start` to the first answer, under the same peak."""
    guest = PlainGuest(lab)
    try:
        await asyncio.to_thread(guest.define)
        await load.set_users(PEAK_USERS)
        await until(lambda: load.in_flight >= FULL_SHARE * PEAK_USERS, "the peak")
        asking = asyncio.ensure_future(until(lambda: answering_vm(lab) == NOBODY, "nobody"))
        try:
            return await asyncio.to_thread(guest.start)
        finally:
            asking.cancel()
    finally:
        await asyncio.to_thread(guest.remove)
        await load.set_users(CALM_USERS)
        # The cluster that is paused now shall not see this load when it goes on.
        await until(lambda: load.present <= CALM_USERS, "the users have left")


async def measure(lab: DataCentre) -> Result:
    """All runs, ours and the plain one in turn."""
    load = Load(lab.addresses.service, hold=HOLD_SECONDS, limit=60_000)
    to_decision, to_answer, plain = [], [], []
    lab.apply_sample()
    await until(lambda: settled(lab, 2), "two VMs serve")
    await load.set_users(CALM_USERS)
    await until(lambda: len(load.outcome.first_answer) == 2, "both VMs answered")
    try:
        for run in range(RUNS):
            decision, answer = await grow_once(lab, load)
            to_decision.append(decision)
            to_answer.append(answer)
            await shrink(lab, load)
            lab.kubectl(
                "-n", NAMESPACE, "patch", "lubancluster", CLUSTER, "--type=merge", "-p", '{"spec":{"paused":true}}'
            )
            plain.append(await plain_once(lab, load))
            lab.kubectl(
                "-n", NAMESPACE, "patch", "lubancluster", CLUSTER, "--type=merge", "-p", '{"spec":{"paused":false}}'
            )
            say(f"run {run + 1}/{RUNS}: decision {decision:.1f} s, answer {answer:.1f} s, plain {plain[-1]:.1f} s")
    finally:
        outcome = await load.stop()
    return Result(
        bench="reaction",
        value=median(to_answer),
        unit="s from decision to the first request served by the new VM",
        baseline="s from virsh start to the first answer, same guest, same load",
        baseline_value=median(plain),
        ratio=median(to_answer) / median(plain),
        detail={
            "threshold_to_decision": spread(to_decision),
            "decision_to_answer": spread(to_answer),
            "plain": spread(plain),
            "interval_s": 5,
            "requests": outcome.sent,
            "failed": len(outcome.failures),
        },
    )


def main() -> None:
    """Bring a lab up, measure, take it down."""
    lab = DataCentre(Layout.from_environment(BASE), say)
    try:
        lab.destroy()
        lab.up()
        asyncio.run(measure(lab)).print()
    finally:
        lab.destroy()


if __name__ == "__main__":
    main()
