"""Times known beforehand at which more VMs must run: a cron expression with time zone and duration."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Annotated
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import Field

from luban.api.common import DNS_LABEL, Model, remedy
from luban.api.units import Duration

MINUTE = 60
_MONTHS = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_DAYS = "SUN|MON|TUE|WED|THU|FRI|SAT"


def _list_of(value: str) -> str:
    """Pattern of one field of a cron expression."""
    term = rf"(\*|({value})(-({value}))?)(/[1-9][0-9]?)?"
    return f"{term}(,{term})*"


CRON = (
    "^(?i:"
    + " ".join(
        _list_of(value)
        for value in (
            "[0-5]?[0-9]",
            "2[0-3]|[01]?[0-9]",
            "3[01]|[12][0-9]|0?[1-9]",
            f"1[0-2]|0?[1-9]|{_MONTHS}",
            f"[0-7]|{_DAYS}",
        )
    )
    + ")$"
)
"""Minute, hour, day of the month, month, day of the week."""
TIME_ZONE = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$"


class Schedule(Model):
    """More VMs from each time on that a cron expression names."""

    name: str = Field(
        pattern=DNS_LABEL,
        max_length=63,
        json_schema_extra=remedy("must be lower-case letters, digits and hyphens, such as registration"),
    )
    """Name of the schedule, unique in the list; decisions call it so."""
    cron: str = Field(
        pattern=CRON,
        max_length=128,
        json_schema_extra=remedy(
            "must be a cron expression of five fields (minute hour day month weekday), such as 30 8 * * MON-FRI"
        ),
    )
    """When it begins: minute, hour, day of the month, month, day of the week (0 or 7: Sunday), each *, a number, a range
    1-5, a step */10, or several with commas; months and weekdays by name too. Day and weekday together: either, unless one
    begins with *. An hour that a change to summer time leaves out begins after it; one that comes twice counts once."""
    time_zone: str = Field(
        default="UTC",
        pattern=TIME_ZONE,
        max_length=64,
        json_schema_extra=remedy("must be a time zone of the IANA database such as Asia/Taipei"),
    )
    """Time zone of the expression."""
    duration: Annotated[Duration, Duration.between("1m", "8784h")]
    """How long it lasts each time. VMs take their time to boot: let it begin before the peak."""
    min_vms: int = Field(ge=1, le=1000, alias="minVMs")
    """VMs that run at least meanwhile; minVMs, where that is more. Afterwards the policy decides again."""

    @property
    def fault(self) -> str:
        """Why it never begins, although it is written as it should be: what must be changed. Empty: it does."""
        try:
            zone = ZoneInfo(self.time_zone)
        except (KeyError, OSError, ValueError):
            return f"timeZone {self.time_zone} is not known: it must be one of the IANA database such as Asia/Taipei"
        if _next(self.cron, zone, 0) is None:
            return f"cron {self.cron!r} names no time: ranges must go upwards, and the day must be one of the month"
        return ""

    def lasts(self, now: float) -> bool:
        """Whether it has begun and is not over. `now`: seconds since the epoch, 0 or later."""
        if self.fault:
            return False
        # What began before cannot last still. Cron knows whole minutes alone: each is worked out once.
        minute = int((now - self.duration.seconds) // MINUTE)
        begins = _next(self.cron, ZoneInfo(self.time_zone), minute)
        return begins is not None and begins <= now


@lru_cache(maxsize=4096)
def _next(cron: str, zone: ZoneInfo, minute: int) -> float | None:
    """The first time after a minute of the epoch, in seconds; None: there is none."""
    after = minute * MINUTE
    try:
        # In an hour that comes twice it may name the first one, which is over.
        moments = (moment.timestamp() for moment in CronSim(cron, datetime.fromtimestamp(after, zone)))
        return next((moment for moment in moments if moment > after), None)
    except (CronSimError, OverflowError, ValueError):
        return None
