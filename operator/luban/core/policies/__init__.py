"""Scaling policies: what each would do now, before windows and cooldowns. One file a policy, one line here."""

from __future__ import annotations

from luban.api.cluster import PolicyName
from luban.core.policies.base import Policy
from luban.core.policies.manual import MANUAL
from luban.core.policies.rules import RULES
from luban.core.policies.sessions import SESSIONS
from luban.core.policies.target import TARGET

POLICIES: dict[PolicyName, Policy] = {
    "Sessions": SESSIONS,
    "Rules": RULES,
    "Target": TARGET,
    "Manual": MANUAL,
}
"""By the word in scaling.policy."""


def policy_of(name: PolicyName) -> Policy:
    """The policy that scaling.policy names."""
    return POLICIES[name]
