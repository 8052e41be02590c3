"""Scaling policies: what each would do now, before windows and cooldowns. One file a policy, one line here."""

from __future__ import annotations

from typing import assert_never

from luban.api.cluster import PolicyName
from luban.core.policies.base import Policy
from luban.core.policies.manual import MANUAL
from luban.core.policies.sessions import SESSIONS


def policy_of(name: PolicyName) -> Policy:
    """The policy that scaling.policy names."""
    match name:
        case "Sessions":
            return SESSIONS
        case "Manual":
            return MANUAL
        case _:
            assert_never(name)
