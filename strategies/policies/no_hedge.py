"""No hedge: hold what is held, whatever happens. The yardstick every other rule is measured against."""

from __future__ import annotations

from bot.core.ports import Band, BandInput
from bot.domain.units import Nanos
from strategies.policies.bands import whole_line


class NoHedge:
    """Never trades."""

    name = "none"
    interval: Nanos | None = None
    needs_ticks = False
    needs_terms = False

    def band(self, x: BandInput) -> Band:
        """The whole line. Shape: as `x.want`."""
        return whole_line(x.want)
