"""The Manual policy: spec.replicas decides, so `kubectl scale`, an HPA or KEDA may drive it through /scale."""

from __future__ import annotations

from luban.core.policies.base import Policy, PolicyInput, Recommendation


def recommend(given: PolicyInput) -> Recommendation:
    """spec.replicas, within what minVMs, maxVMs and the hosts allow."""
    asked = given.spec.replicas
    if asked is None:
        return Recommendation("Hold", "Manual", f"spec.replicas is not set, so {given.desired} VMs stay")
    limits = given.limits()
    wanted = min(max(asked, limits.minimum), limits.maximum)
    message = f"spec.replicas asks for {asked} VM{'' if asked == 1 else 's'}"
    if wanted != asked:
        message += f", kept within {limits.minimum}{limits.why_minimum} and {limits.maximum}: {wanted}"
    if wanted == given.desired:
        return Recommendation("Hold", "Manual", message)
    return Recommendation(
        "ScaleUp" if wanted > given.desired else "ScaleDown", "Manual", message, wanted - given.desired
    )


MANUAL = Policy(recommend, immediate=True)
