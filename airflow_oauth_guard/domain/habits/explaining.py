"""Sentences on how usual it is what was heard."""

from __future__ import annotations

import math
from datetime import timedelta

from airflow_oauth_guard.domain.habits.clocks import Clock
from airflow_oauth_guard.domain.habits.wall import DAY, HOUR, MINUTE, MONDAY

_DAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")


def how_often_it_reports(gap: timedelta) -> str:
    minutes = round(gap / MINUTE)
    if minutes < 2 * HOUR:
        return f"Usually it reports every {minutes} minutes."
    often = f"{minutes / HOUR:.0f} hours" if minutes < 2 * DAY else f"{minutes / DAY:.0f} days"
    return f"Usually it reports every {often}."


def how_often_a_load_came(clock: Clock, minute: int) -> str:
    when = "at this hour" if clock.width != DAY else "so far in the day"
    return f"On {_weekday(minute)} {when} a load came in {_share(clock, minute)} of weeks."


def how_often_a_load_had_rows(clock: Clock, minute: int) -> str:
    return f"On {_weekday(minute)} at this hour {_share(clock, minute)} of loads had some rows."


def how_often_a_number_repeats(surprise: float) -> str:
    often = round(math.exp(surprise))
    if often <= 1:
        return "How often its numbers repeat was not learned."
    return f"The same number twice in a row happened in about 1 of {often} loads of this size."


def _weekday(minute: int) -> str:
    return _DAYS[(minute - MONDAY) // DAY % 7]


def _share(clock: Clock, minute: int) -> str:
    return f"{1 - math.exp(-clock.weight_at(minute)):.0%}".replace("%", " %")
