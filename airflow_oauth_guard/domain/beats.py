"""A heartbeat: what a run says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Beat:
    """A run's word of how much it moved, or what the detector found at the destination."""

    at: datetime
    rows: int | None
    """None: nobody knows, which is not zero."""
    watermark: datetime | None = None
    """How far the data reaches, where the job knows."""
    measured: bool = False
    """True for what the detector found; it says nothing about whether a job ran."""
