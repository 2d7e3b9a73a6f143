"""What a job on Hugging Face's hardware may cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub import JobHardwareInfo

DEFAULT_HARDWARE = "cpu-basic"

DEFAULT_MINUTES = 30
"""As the Hub has it (https://huggingface.co/docs/hub/jobs-pricing)."""

LISTED = {
    "cpu-basic": 0.01,
    "cpu-upgrade": 0.03,
    "cpu-xl": 1.00,
    "cpu-performance": 1.90,
    "t4-small": 0.40,
    "t4-medium": 0.60,
    "l4x1": 0.80,
    "l4x4": 3.80,
    "l40sx1": 1.80,
    "l40sx4": 8.30,
    "l40sx8": 23.50,
    "a10g-small": 1.00,
    "a10g-large": 1.50,
    "a10g-largex2": 3.00,
    "a10g-largex4": 5.00,
    "a100-large": 2.50,
    "a100x4": 10.00,
    "a100x8": 20.00,
    "h200": 5.00,
    "h200x2": 10.00,
    "h200x4": 20.00,
    "h200x8": 40.00,
    "rtx-pro-6000": 2.75,
    "rtx-pro-6000x2": 5.50,
    "rtx-pro-6000x4": 11.00,
    "rtx-pro-6000x8": 22.00,
}
"""USD an hour by hardware, from https://huggingface.co/docs/hub/jobs-pricing (2026); the Hub's own list replaces it as
soon as it was asked for. A job is billed by the minute while it starts and runs."""

MINUTES = {"minute": 1, "hour": 60}


class JobPrices:
    """USD an hour by hardware, as far as it is known."""

    def __init__(self) -> None:
        self._hourly: Mapping[str, float] = LISTED

    def learn(self, hardware: Iterable[JobHardwareInfo]) -> None:
        """Take over what the Hub says now."""
        self._hourly = {
            one.name: one.unit_cost_usd * 60 / MINUTES[one.unit_label] for one in hardware if one.unit_label in MINUTES
        }

    def hourly(self, hardware: str) -> float | None:
        return self._hourly.get(hardware)

    def most(self, hardware: str, minutes: float) -> float | None:
        """USD for a job that is stopped after so many minutes; each that has begun is billed."""
        hourly = self.hourly(hardware)
        return None if hourly is None else hourly * math.ceil(minutes) / 60
