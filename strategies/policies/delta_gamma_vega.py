"""Delta, gamma and vega together: several hedge instruments at once, in whole lots, by what each removes of risk and costs.

Law: an instrument is traded only as far as the risk it removes is worth its spread, fee and ticket, over one horizon. The
risk is the variance of the P&L that the exposures left would make until the next look (`bot.pricing.hedge_program`).

The rule has two faces. `decide_all` is the whole of it: the joint optimum over all instruments, for a strategy that trades
several. `band` is its section along one instrument, the others left as they are: the interval of holdings from which the
programme would not move this instrument, which for a book with delta alone is the whole answer. With variance S^2 sigma^2 h
over the horizon and c = cost S |per_contract| the cost of a contract, the condition |g S^2 sigma^2 h per_contract^2 (w -
want)| <= c gives the half width c / (g S^2 sigma^2 h per_contract^2) = cost / (g S sigma^2 h |per_contract|).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec
import numpy as np

from bot.core.ports import Band, BandInput
from bot.domain.units import NS_PER_YEAR, Nanos, decimal_of, parse_span, span
from bot.pricing.hedge_program import HedgeSolution, solve

ZERO = Decimal(0)

MAX_NODES: Final = 2_000
"""Boxes looked into before a decision is taken as it stands, with its gap: less than a second of search."""


class Exposures(msgspec.Struct, frozen=True, kw_only=True):
    """What a book is exposed to now, held candidates included, and how the exposures move together.

    `names` such as ("delta", "gamma", "vega 30d"), one for each of `values`; `covariance` that of the P&L of one unit of each
    over the horizon (`hedge_program.risk_matrix`); `floor` and `ceiling` what each must be kept within (None: no limit).
    """

    names: tuple[str, ...]
    values: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    floor: tuple[float | None, ...] = ()
    ceiling: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.values):
            raise ValueError(f"exposures: expected a value for each of {self.names}, found {len(self.values)}")
        for what in ("floor", "ceiling"):
            limits = getattr(self, what)
            if limits and len(limits) != len(self.names):
                raise ValueError(f"exposures: {what}: expected {len(self.names)} numbers or none, found {len(limits)}")


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument that may hedge: the exposures of one contract, its one-way cost and its limits.

    `cost` is half spread + fee of a contract and `ticket` the fixed fee of an order, in currency; `lot` the smallest step of
    an order (None: any size); `lo` and `hi` bound the holding, `most` the size of one order (displayed size, say).
    """

    instrument: str
    greeks: tuple[float, ...]
    cost: float
    ticket: float = 0.0
    lot: Decimal | None = Decimal(1)
    lo: float = -math.inf
    hi: float = math.inf
    most: float = math.inf


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What to hold of one instrument, the number before lots, and why; `stay` when it is not traded."""

    instrument: str
    quantity: Decimal
    trade: Decimal
    unrounded: float
    stay: bool
    cost: float
    reason: str


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """A decision over all candidates: each one's holding, the exposures left, and risk and cost in money.

    `bound` is what no choice can beat, so `cost + risk_after - bound` is what this one may be short of the best.
    """

    choices: tuple[Choice, ...]
    residual: tuple[float, ...]
    risk_before: float
    risk_after: float
    cost: float
    bound: float
    proved: bool
    within_limits: bool
    reason: str

    @property
    def trades(self) -> tuple[Choice, ...]:
        """The choices that change a holding."""
        return tuple(choice for choice in self.choices if not choice.stay)


class DeltaGammaVega:
    """Least variance over a horizon plus cost. `risk_aversion` in 1/currency, `horizon` until the next look.

    As a `HedgePolicy` it is an edge band of one instrument at a time; `decide_all` is the joint decision.
    """

    interval: Nanos | None = None
    needs_ticks = True

    def __init__(self, *, risk_aversion: float, horizon: str | Nanos = "1d", max_nodes: int = MAX_NODES) -> None:
        length = parse_span(horizon) if isinstance(horizon, str) else horizon
        if length <= 0:
            raise ValueError(f"delta_gamma_vega: horizon: expected longer than zero, found {horizon!r}")
        if not (math.isfinite(risk_aversion) and risk_aversion > 0.0):
            raise ValueError(f"delta_gamma_vega: risk_aversion: expected a number above 0, found {risk_aversion!r}")
        if max_nodes < 1:
            raise ValueError(f"delta_gamma_vega: max_nodes: expected at least 1, found {max_nodes!r}")
        self.risk_aversion = float(risk_aversion)
        self.horizon = length
        self.horizon_years = length / NS_PER_YEAR
        self.max_nodes = max_nodes
        self.name = f"delta gamma vega, g {risk_aversion:g}, {span(length)}"

    # ------------------------------------------------------------------ one instrument

    def band(self, x: BandInput) -> Band:
        """want -+ cost / (g S sigma^2 h |per_contract|) in hedge contracts, the other instruments left as held.

        Where the vol is not known the band is the point `want`: nothing says how far a drift would be worth its cost.
        Shape: as `x.want`, an instrument axis last.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            worth = self.risk_aversion * np.abs(x.per_contract) * x.spot * np.square(x.vol) * self.horizon_years
            h = np.where(worth > 0.0, np.divide(x.cost, worth), np.where(np.asarray(x.vol) == 0.0, np.inf, 0.0))
        h = np.where(np.asarray(x.cost) > 0.0, h, 0.0)
        if np.ndim(x.want) == 0 and h.ndim == 0:
            return Band(x.want - float(h), x.want + float(h))
        return Band(x.want - h, x.want + h)

    # ------------------------------------------------------------------ all at once

    def decide_all(self, exposures: Exposures, candidates: Sequence[Candidate], held: Mapping[str, Decimal]) -> Choices:
        """The holdings of least risk plus cost, with reasons; what `held` does not name is held at zero.

        Errors: ValueError for candidates whose Greeks do not match the exposures or that are named twice, and for
        whatever the programme refuses (a covariance that is none, no lot inside a limit).
        """
        names = [candidate.instrument for candidate in candidates]
        if len(set(names)) != len(names):
            raise ValueError(f"delta_gamma_vega: candidates: expected each instrument once, found {names}")
        for candidate in candidates:
            if len(candidate.greeks) != len(exposures.names):
                raise ValueError(
                    f"delta_gamma_vega: {candidate.instrument}: expected {len(exposures.names)} exposures "
                    f"{exposures.names}, found {len(candidate.greeks)}"
                )
        now = [held.get(name, ZERO) for name in names]
        whole = self._solve(exposures, candidates, now, lots=True)
        lots = any(candidate.lot is not None for candidate in candidates)
        exact = self._solve(exposures, candidates, now, lots=False) if lots else whole
        return self._worded(exposures, candidates, now, whole, exact)

    def _solve(
        self, exposures: Exposures, candidates: Sequence[Candidate], now: Sequence[Decimal], *, lots: bool
    ) -> HedgeSolution:
        m = len(exposures.names)
        held = np.array([float(quantity) for quantity in now])
        greeks = np.array([c.greeks for c in candidates], dtype=np.float64).reshape(len(candidates), m).T
        return solve(
            np.asarray(exposures.values, np.float64) - greeks @ held,
            greeks,
            np.asarray(exposures.covariance, np.float64).reshape(m, m),
            held=held,
            cost=[c.cost for c in candidates],
            risk_aversion=self.risk_aversion,
            ticket=[c.ticket for c in candidates],
            lo=[max(c.lo, w - c.most) for c, w in zip(candidates, held, strict=True)],
            hi=[min(c.hi, w + c.most) for c, w in zip(candidates, held, strict=True)],
            lot=[float(c.lot) if lots and c.lot is not None else 0.0 for c in candidates],
            floor=[-math.inf if limit is None else limit for limit in exposures.floor] or None,
            ceiling=[math.inf if limit is None else limit for limit in exposures.ceiling] or None,
            max_nodes=self.max_nodes,
        )

    def _worded(
        self,
        exposures: Exposures,
        candidates: Sequence[Candidate],
        now: Sequence[Decimal],
        found: HedgeSolution,
        exact: HedgeSolution,
    ) -> Choices:
        Q = np.asarray(exposures.covariance, np.float64).reshape(len(exposures.names), -1)
        g, e = self.risk_aversion, found.residual
        choices = []
        for i, (candidate, quantity) in enumerate(zip(candidates, now, strict=True)):
            a = np.asarray(candidate.greeks, np.float64)
            lots = candidate.lot is not None
            trade = int(found.lots[i]) * (candidate.lot or ZERO) if lots else decimal_of(float(found.trade[i]))
            cost = candidate.cost * abs(float(trade)) + (candidate.ticket if trade else 0.0)
            if trade:
                without = e - a * float(trade)
                saved = 0.5 * g * float(without @ Q @ without - e @ Q @ e)
                verb = "buy" if trade > 0 else "sell"
                moved = ", ".join(
                    f"{name} {step:+.4g}"
                    for name, step in zip(exposures.names, a * float(trade), strict=True)
                    if step != 0.0
                )
                why = f"{verb} {abs(trade)}: {moved}; it saves {saved:,.2f} of risk for {cost:,.2f}"
            else:
                first = abs(g * float(a @ Q @ e)) * float(candidate.lot or 1)
                price = candidate.cost * float(candidate.lot or 1) + candidate.ticket
                why = f"stay: the next lot would save at most {first:,.2f} of risk and cost {price:,.2f}"
                if first > price:
                    why = f"stay: no whole lot inside its limits saves more risk than the {price:,.2f} it costs"
            choices.append(
                Choice(
                    instrument=candidate.instrument,
                    quantity=quantity + trade,
                    trade=trade,
                    unrounded=float(exact.quantity[i]),
                    stay=not trade,
                    cost=cost,
                    reason=f"{self.name}: {why}",
                )
            )
        return Choices(
            choices=tuple(choices),
            residual=tuple(float(value) for value in e),
            risk_before=found.before,
            risk_after=found.risk,
            cost=found.cost + found.tickets,
            bound=found.bound,
            proved=found.proved,
            within_limits=found.within_limits,
            reason=self._summary(exposures, found),
        )

    def _summary(self, exposures: Exposures, found: HedgeSolution) -> str:
        left = ", ".join(f"{name} {value:.4g}" for name, value in zip(exposures.names, found.residual, strict=True))
        text = (
            f"{self.name}: risk {found.before:,.2f} to {found.risk:,.2f} for {found.cost + found.tickets:,.2f} "
            f"of cost; left: {left}"
        )
        if not found.within_limits:
            text += "; no holding inside the position limits meets the limits on exposures"
        if not found.proved:
            text += f"; may be {found.gap:,.2f} short of the best"
        return text
