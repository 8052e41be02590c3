"""The phases of a VM, and what each means to whom. Whoever adds one says here what it is: a test asks for it.

    Pending -> Provisioning -> Booting -> Ready -> Draining -> Stopping -> gone
                                 |  \\       | ^ \\
                                 |   Failed | |  Lost
                                 +-------> Paused -> Failed

    In the pool:  Booting | Draining -> Warm -> Resuming -> Ready
"""

from __future__ import annotations

from luban.api.vm import Phase

STARTING: frozenset[Phase] = frozenset({"Pending", "Provisioning", "Booting", "Warm", "Resuming"})
"""On their way to Ready: nobody misses one that goes."""
UNSTARTED: frozenset[Phase] = frozenset({"Pending", "Provisioning"})
"""No domain of theirs was seen to run yet."""
NEVER_SERVED: frozenset[Phase] = frozenset({"Pending", "Provisioning", "Booting", "Warm", "Resuming", "Failed"})
"""Since they were started, or drained. No requests can be in flight on them, unless a balancer says otherwise."""
PAST_DRAINING: frozenset[Phase] = frozenset({"Stopping", "Lost"})
"""Nothing is left to be drained."""
PROBED: frozenset[Phase] = frozenset({"Booting", "Ready", "Paused", "Resuming"})
"""Their readiness is asked for."""
AWAITED: frozenset[Phase] = frozenset({"Booting", "Resuming"})
"""Asked again and again until they answer: users wait for it."""
SEEN_ON_HOST: frozenset[Phase] = frozenset({"Pending", "Provisioning", "Booting", "Resuming", "Stopping"})
"""What becomes of them next is seen on their host: what that said a while ago is too old."""
BECOMES_READY: frozenset[Phase] = frozenset({"Booting", "Paused", "Resuming"})
"""From here a VM becomes ready, which ends the patience with what failed."""
NO_USE: frozenset[Phase] = frozenset({"Failed", "Paused"})
"""They answer nobody, and nothing is under way that would change it."""
IN_VAIN: frozenset[Phase] = frozenset({"Failed", "Lost"})
"""A VM that comes to this costs patience with the next, unless it served for long before."""
HOLDS_NOTHING: frozenset[Phase] = frozenset({"Lost"})
"""Their domains are off and are not started again: they take no room on a host."""
FIT: frozenset[Phase] = frozenset({"Ready", "Warm"})
"""It was found ready, and nothing is amiss since."""
TAKEABLE: frozenset[Phase] = frozenset({"Pending", "Provisioning", "Booting", "Ready", "Draining", "Warm", "Resuming"})
"""A VM of the pool that can be let serve: at the worst it takes as long as a new one."""
GROUPS: dict[str, frozenset[Phase]] = {
    "STARTING": STARTING,
    "UNSTARTED": UNSTARTED,
    "NEVER_SERVED": NEVER_SERVED,
    "PAST_DRAINING": PAST_DRAINING,
    "PROBED": PROBED,
    "AWAITED": AWAITED,
    "SEEN_ON_HOST": SEEN_ON_HOST,
    "BECOMES_READY": BECOMES_READY,
    "NO_USE": NO_USE,
    "IN_VAIN": IN_VAIN,
    "HOLDS_NOTHING": HOLDS_NOTHING,
    "FIT": FIT,
    "TAKEABLE": TAKEABLE,
}
"""All groups by name."""
