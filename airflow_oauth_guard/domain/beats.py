"""A heartbeat: what a run says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

SKIPPED = "skipped:"
"""How the note of a run begins that did nothing on purpose."""


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
    note: str = ""
    """What the run says beside the number."""

    @property
    def is_skip(self) -> bool:
        """Whether the run was skipped. That is no delivery, and no run that a window waits for."""
        return not self.rows and self.note.startswith(SKIPPED)
