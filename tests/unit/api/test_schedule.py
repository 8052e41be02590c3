"""Cron expressions with time zones: when a schedule lasts, what may be written, what is said if it never begins."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from luban.api.schedule import Schedule

NEW_YORK = ZoneInfo("America/New_York")


def schedule(cron: str, zone: str = "UTC", duration: str = "10m") -> Schedule:
    return Schedule.model_validate({"name": "it", "cron": cron, "timeZone": zone, "duration": duration, "minVMs": 3})


def changes(it: Schedule, day: tuple[int, int, int], zone: ZoneInfo) -> list[str]:
    """Local times at which it begins and ends within 24 hours from a midnight."""
    midnight = datetime(*day, tzinfo=zone).timestamp()
    minutes = [midnight + 60 * number for number in range(24 * 60)]
    turns = [now for now in minutes if it.lasts(now) != it.lasts(now - 60)]
    return [datetime.fromtimestamp(now, zone).strftime("%H:%M") for now in turns]


@pytest.mark.parametrize(
    ("cron", "day", "expected"),
    [
        ("30 8 * * *", (2026, 6, 3), ["08:30", "08:40"]),
        ("30 8 * * MON-FRI", (2026, 6, 6), []),
        ("30 8 * * mon-fri", (2026, 6, 5), ["08:30", "08:40"]),
        ("30 8 3 jun *", (2026, 6, 3), ["08:30", "08:40"]),
        ("0,5 8 * * *", (2026, 6, 3), ["08:00", "08:15"]),
        ("*/30 8-9 * * 7", (2026, 6, 7), ["08:00", "08:10", "08:30", "08:40", "09:00", "09:10", "09:30", "09:40"]),
        ("30 2 * * *", (2026, 3, 8), ["03:00", "03:10"]),
        ("30 1 * * *", (2026, 11, 1), ["01:30", "01:40"]),
    ],
)
def test_when_it_lasts(cron: str, day: tuple[int, int, int], expected: list[str]) -> None:
    """In a place where an hour is left out in March and one comes twice in November."""
    assert changes(schedule(cron, "America/New_York"), day, NEW_YORK) == expected


def test_a_long_one_reaches_over_midnight_and_seconds_count() -> None:
    it = schedule("0 23 * * *", duration="90m")
    begin = datetime(2026, 6, 3, 23, tzinfo=ZoneInfo("UTC"))
    ends = begin + timedelta(minutes=90)
    moments = [begin - timedelta(seconds=1), begin, ends - timedelta(seconds=61), ends]
    assert [it.lasts(moment.timestamp()) for moment in moments] == [False, True, True, False]


@pytest.mark.parametrize(
    "cron",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "a * * * *",
     "*/0 * * * *", "@daily", "* * L * *", "* * * * 5#2", "1,, * * * *", "*  * * * *", " * * * * *"],
)  # fmt: skip
def test_what_may_not_be_written(cron: str) -> None:
    with pytest.raises(ValidationError):
        schedule(cron)


@pytest.mark.parametrize("zone", ["", "+08:00", "../etc", "Asia/Taipei/", "a" * 65, "zone.tab"])
def test_what_is_no_zone(zone: str) -> None:
    with pytest.raises(ValidationError):
        schedule("* * * * *", zone)


@pytest.mark.parametrize(
    ("cron", "zone", "fault"),
    [
        ("0 8 * * *", "Asia/Taipei", ""),
        ("0 0 29 2 *", "UTC", ""),
        ("0 8 * * *", "Asia/Taipeh", "timeZone Asia/Taipeh is not known: it must be one of the IANA database"),
        ("0 8 * * *", "Asia", "timeZone Asia is not known"),
        ("0 17-9 * * *", "UTC", "cron '0 17-9 * * *' names no time: ranges must go upwards"),
        ("0 0 31 2 *", "UTC", "cron '0 0 31 2 *' names no time"),
        ("0 0 31 2,4 *", "UTC", "cron '0 0 31 2,4 *' names no time"),
    ],
)
def test_what_never_begins_says_why(cron: str, zone: str, fault: str) -> None:
    it = schedule(cron, zone)
    assert it.fault.startswith(fault)
    assert bool(it.fault) == bool(fault)
    assert not fault or not it.lasts(1_700_000_000.0)
