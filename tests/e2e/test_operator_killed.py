"""The operator dies at random moments; what it was doing is finished, and nothing is done twice."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.e2e.lab_view import LabView

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
ROUNDS = 5
LONGEST_DELAY = 6.0


def kill_after(scene: LabView, seconds: float) -> None:
    """SIGKILL the operator so long after now, and start a new one."""
    moment = time.monotonic() + seconds
    scene.until(lambda: time.monotonic() >= moment, "the chosen moment", deadline=seconds + 5)
    scene.lab.operator.kill(signal.SIGKILL)
    scene.until(lambda: scene.lab.operator.pid() is None, "the operator is dead")
    scene.lab.start_operator()


def test_ten_kills_mid_scaling(scene: LabView) -> None:
    """Five scale-ups and five scale-downs, each with a kill at a random moment: the same end state each time."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(ROUNDS):
        for count in (3, 2):
            scene.scale(count)
            kill_after(scene, dice.uniform(0, LONGEST_DELAY))
            scene.until(lambda count=count: scene.consistent(count), f"{count} VMs and nothing else (seed {seed})")


def test_the_service_answers_without_operator(scene: LabView) -> None:
    """A stopped operator stops nothing else; SIGTERM ends it quickly."""
    import urllib.request

    assert scene.lab.operator.stop(timeout=10)
    with urllib.request.urlopen(f"{scene.lab.addresses.service}/healthz", timeout=10) as answer:
        assert answer.status == 200
    assert len(scene.domains()) == 2
