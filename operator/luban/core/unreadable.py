"""LubanVMs that this version cannot read: they are left alone, but whoever deletes one is not kept waiting.

Where such a VM runs is not known. Once its LubanVM is let go, its domain is a stray of the cluster, wherever it stands,
and is removed as one.
"""

from __future__ import annotations

from luban.core.model import Action, DeleteVM, Observation, OrphanVM, ReleaseVM

REASON = "Unreadable"


def release_deleted(observation: Observation) -> tuple[Action, ...]:
    """Let those go that somebody deleted."""
    return tuple(ReleaseVM(vm.name, REASON) for vm in observation.unreadable if vm.deleted and vm.has_finalizer)


def delete_all(observation: Observation) -> tuple[Action, ...]:
    """Delete all, and let go those that are deleted."""
    deleted = tuple(DeleteVM(vm.name, "ClusterDeleted") for vm in observation.unreadable if not vm.deleted)
    return (*deleted, *release_deleted(observation))


def orphan_all(observation: Observation) -> tuple[Action, ...]:
    """Let all live on without us."""
    return tuple(OrphanVM(vm.name, "Orphan") for vm in observation.unreadable if vm.has_finalizer)
