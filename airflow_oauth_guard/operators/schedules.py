"""When the DAG that runs a task runs, if a cron says so."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from airflow_oauth_guard.domain.feeding import Schedule

CRON_TIMETABLES = frozenset({"CronTriggerTimetable", "CronDataIntervalTimetable", "CronPartitionTimetable"})
SEVERAL_CRONS = frozenset({"MultipleCronTriggerTimetable"})


def schedule_of(dag: Any) -> Schedule | None:
    """The cron of a DAG; None where it has none, or one that cannot be told from without.

    Airflow's own timetables only: a class that somebody derived from one may run at other times than its cron says.
    """
    timetable = getattr(dag, "timetable", None)
    crons = _several(timetable) if _is(timetable, SEVERAL_CRONS) else [timetable]
    if not all(_is(cron, CRON_TIMETABLES) for cron in crons):
        return None
    expressions = tuple(str(_told(cron, "expression")) for cron in crons)
    zone = _zone_name(_told(crons[0], "timezone"))
    # With a sixth field a cron counts seconds.
    return Schedule(expressions, zone) if zone and all(len(text.split()) == 5 for text in expressions) else None


def _is(timetable: Any, names: frozenset[str]) -> bool:
    # By name: the Task SDK has classes of its own since Airflow 3.2, and takes those of Airflow's core as well.
    return type(timetable).__name__ in names and type(timetable).__module__.startswith("airflow.")


def _several(timetable: Any) -> list[Any]:
    return list(_told(timetable, "timetables"))


def _told(timetable: Any, name: str) -> Any:
    # The core's classes, the only ones before Airflow 3.2, keep it under a name of their own.
    return getattr(timetable, name) if hasattr(timetable, name) else getattr(timetable, f"_{name}")


def _zone_name(zone: tzinfo | str) -> str:
    """Its IANA name; empty for a fixed distance from UTC, which has none."""
    if isinstance(zone, ZoneInfo):
        return zone.key
    return zone if isinstance(zone, str) else ""
