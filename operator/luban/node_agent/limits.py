"""What status and metrics tell about: the same bonds and ports, within bounds, however odd the host. Pure."""

from __future__ import annotations

from luban.api.host import LONGEST_MESSAGE, MAX_BONDS, MAX_PORTS
from luban.core.bonds.host import HostJudgement
from luban.core.bonds.model import SEVERITY, Judgement, PortJudgement, PortReading


def shown_bonds(judgement: HostJudgement) -> tuple[Judgement, ...]:
    """The bonds to show, by name. If they are too many, the one that counts comes first, then the worst."""

    def order(bond: Judgement) -> tuple[bool, int, str]:
        return bond is not judgement.primary, -SEVERITY.index(bond.verdict), bond.reading.name

    chosen = sorted(judgement.bonds, key=order)[:MAX_BONDS]
    return tuple(sorted(chosen, key=lambda bond: bond.reading.name))


def shown_ports(bond: Judgement) -> tuple[tuple[PortReading, PortJudgement], ...]:
    """The ports of a bond to show, by name. If they are too many, those that are not usable come first."""
    pairs = zip(bond.reading.ports, bond.ports, strict=True)
    chosen = sorted(pairs, key=lambda pair: (pair[1].usable is True, pair[0].name))[:MAX_PORTS]
    return tuple(sorted(chosen, key=lambda pair: pair[0].name))


def legible(text: str, limit: int = LONGEST_MESSAGE) -> str:
    """Text of at most `limit` characters, without control characters: they are written as escapes."""
    if not text.isprintable():
        text = "".join(one if one.isprintable() else _escape(one) for one in text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", errors="backslashreplace"))
