"""What is counted and measured for those who watch from outside, by whichever way Airflow sends its own metrics."""

from __future__ import annotations

from dataclasses import dataclass

IN_TROUBLE_AT_MOST = 100
"""Credentials that have a gauge of their own: an outage that fails 50,000 of them must not send 50,000 packets each cycle."""


@dataclass(frozen=True)
class Metric:
    name: str
    kind: str
    """``counter``, ``gauge`` or ``timer``."""
    tags: tuple[str, ...]
    """The first one becomes part of the name where tags are dropped."""
    meaning: str


REFRESH = Metric(
    "oauth_guard.refresh",
    "counter",
    ("outcome", "connection_class", "provider"),
    "A refresh attempt ended: `renewed`, `failed`, or nothing was sent (`fresh`, `busy`, `held`). Repeats inside an investigation "
    "count too.",
)
REFRESH_DURATION = Metric(
    "oauth_guard.refresh_duration",
    "timer",
    ("outcome", "connection_class", "provider"),
    "How long a refresh attempt took that was `renewed` or `failed`, in milliseconds, keeping the answer included.",
)
PROBE = Metric(
    "oauth_guard.probe",
    "counter",
    ("finding", "connection_class", "provider"),
    "A probe was answered, or not, and this is what it found.",
)
VERDICT = Metric(
    "oauth_guard.verdict",
    "counter",
    ("finding", "verdict", "connection_class", "provider"),
    "An investigation was concluded. `verdict` is `dead` where the finding is proven; a grant that is proven dead is not expired yet.",
)
CREDENTIALS = Metric(
    "oauth_guard.credentials", "gauge", ("status",), "How many credentials have this status, once per refresh cycle."
)
TIME_TO_LAPSE = Metric(
    "oauth_guard.time_to_lapse",
    "gauge",
    ("connection_class",),
    "Seconds of predicted life left to the active credential of this class that has the least; 0 once it is over.",
)
CREDENTIAL_TIME_TO_LAPSE = Metric(
    "oauth_guard.credential_time_to_lapse",
    "gauge",
    ("credential",),
    "The same of one credential in trouble: its refreshes fail, or it is not active. Of at most "
    f"{IN_TROUBLE_AT_MOST}, the active ones with the least left first.",
)
FLAT_LINE = Metric(
    "oauth_guard.flat_line",
    "counter",
    ("kind",),
    "An incident about a source was opened, or turned into another kind; `everything_quiet` is one about all of them.",
)
SOURCES = Metric(
    "oauth_guard.sources", "gauge", ("standing",), "How many sources the last looks found like this, once per pass."
)

METRICS = (
    REFRESH,
    REFRESH_DURATION,
    PROBE,
    VERDICT,
    CREDENTIALS,
    TIME_TO_LAPSE,
    CREDENTIAL_TIME_TO_LAPSE,
    FLAT_LINE,
    SOURCES,
)
