"""What a source's own history teaches about when to expect the next load.

A *surprise clock* runs while nothing comes: each slot of the week that passes empty adds ``-log(1 - p)``, where ``p`` is
the share of weeks in which that slot was not empty. A quiet night adds next to nothing, a quiet rush hour a lot, and an
alarm is due when more has piled up than the quiet stretches of the past explain, at the false alarms that the budget
allows. Loads without rows have a clock of the same make; loads that repeat a number have one by the number's size.

From the outside in:

- ``learning.py``: :func:`learn`, from heartbeats to a habit. ``habit.py``: :class:`Habit`, what is kept and asked.
- ``late.py``, ``flat.py``, ``repeats.py``, ``grace.py``, ``bands.py``: one thing each that a lesson teaches.
- ``lesson.py``: a history made ready. ``slots.py``: which slots of it had a heartbeat. ``patterns.py``: how often slots
  are empty. ``thresholds.py``: how much surprise is too much.
- ``clocks.py``: a surprise clock, and when it runs out. ``wall.py``: wall clocks. ``explaining.py``: sentences.
"""

from __future__ import annotations

from airflow_oauth_guard.domain.habits.clocks import Clock
from airflow_oauth_guard.domain.habits.habit import Habit
from airflow_oauth_guard.domain.habits.learning import learn
from airflow_oauth_guard.domain.habits.lesson import ENOUGH_LOADS, HISTORY, PLENTY_OF_LOADS, RECENT
from airflow_oauth_guard.domain.habits.wall import wall_minute

__all__ = ["ENOUGH_LOADS", "HISTORY", "PLENTY_OF_LOADS", "RECENT", "Clock", "Habit", "learn", "wall_minute"]
