"""Performance is what a hedge cost and what it took away: one record an order, from the facts of a run; law: delay, spread and
impact sum to the slippage against the middle at the decision, exactly, in the currency of settlement.

The benchmark is the decision (Perold 1988, "The implementation shortfall"): the middle of the quote the decision saw. From
there to the middle at the fill is delay, from there to the touch spread, from there to the price impact (negative: better
than the touch). A cost is positive. Rolling figures look back only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.events import Evidence
from bot.domain.costs import ImpactModel, NoImpact, QuotedSpread, SpreadModel, half_spread, impact_per_unit, notional_of
from bot.domain.instruments import Instrument, price_move_value, settlement_currency
from bot.domain.orders import Fill, Order, QuoteRef
from bot.domain.units import DAYS_PER_YEAR, Nanos, decimal_of
from bot.engine.journal import Executed, Ordered, Step, TargetSet, VenueSaid

Floats = NDArray[np.float64]
ZERO: Final = Decimal(0)
ONE_BP: Final = 1e-4


class Walk(NamedTuple):
    """An execution beyond what was displayed: how deep it reached, what had been displayed (None: nobody can say), and how
    much worse than the touch it was, in price units."""

    depth: Decimal
    displayed: Decimal | None
    touch: Decimal
    worse: Decimal


class HedgeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One order from decision to last fill. Money in `currency`, prices per unit, instants in UTC nanoseconds.

    `decision_mid` and `decision_half` are of the quote the decision saw, None where it had none. `arrived` is when the venue
    first spoke of the order or filled it. `delay`, `spread`, `impact` sum to `slippage`; with `commission` to the cost.
    `expected` is the slippage the paper model told of the filled size, delay apart. `spread_paid` is a unit's distance from
    the middle at the fill to its price, impact apart. `risk_removed` is the standard deviation of a day's P&L that the
    order took away (negative: added), None where the decision kept no band or vol.
    """

    order_id: str
    account: str
    instrument: str
    currency: str
    kind: str
    asked: Decimal
    done: Decimal
    decided: Nanos
    arrived: Nanos | None
    filled: Nanos | None
    quote_age: Nanos | None
    decision_mid: Decimal | None
    decision_half: Decimal | None
    price: Decimal | None
    mid: Decimal | None
    notional: Decimal
    delay: Decimal | None
    spread: Decimal
    impact: Decimal
    commission: Decimal
    expected: Decimal | None
    spread_paid: Decimal | None
    touch_half: Decimal | None
    walks: tuple[Walk, ...]
    risk_removed: float | None
    closing: bool
    reason: str
    said: str

    @property
    def slippage(self) -> Decimal | None:
        """What trading lost against the middle at the decision, fees apart; None without a decision's quote."""
        return None if self.delay is None else self.delay + self.spread + self.impact

    @property
    def cost(self) -> Decimal:
        """Spread, impact and commission; delay is luck as often as not and stands apart."""
        return self.spread + self.impact + self.commission

    @property
    def slippage_bp(self) -> float | None:
        """The slippage in basis points of what was traded."""
        slippage = self.slippage
        return None if slippage is None or not self.notional else float(slippage / self.notional) / ONE_BP

    @property
    def spread_share(self) -> float | None:
        """The share of the half spread seen at the decision that was paid at the fill; None where it was locked."""
        if self.spread_paid is None or not self.decision_half:
            return None
        return float(self.spread_paid / self.decision_half)

    @property
    def latency(self) -> Nanos | None:
        """From the decision to the venue."""
        return None if self.arrived is None else self.arrived - self.decided

    @property
    def wait(self) -> Nanos | None:
        """From the venue to the last fill."""
        return None if self.filled is None or self.arrived is None else self.filled - self.arrived


class FillModel(msgspec.Struct, frozen=True, kw_only=True):
    """What the paper broker is told that a fill costs: spreads by id, kind or `*`, and impact beyond the display.

    Law: the same functions of `bot.domain.costs` that the broker fills by.
    """

    spreads: Mapping[str, SpreadModel] = {}
    impact: ImpactModel = NoImpact()

    def worse_than_mid(
        self, instrument: Instrument, *, mid: Decimal, half: Decimal | None, walk: Walk | None
    ) -> Decimal | None:
        """How much worse than the middle a unit is told to execute, in price units; None when the model cannot say.

        `half` is the quoted half spread the decision saw, for instruments that fill as quoted.
        """
        model = self._spread_of(instrument)
        told = half if isinstance(model, QuotedSpread) else half_spread(model, last=mid, tick=instrument.tick)
        if told is None:
            return None
        if walk is None:
            return told
        deeper = impact_per_unit(self.impact, price=walk.touch, excess=walk.depth, displayed=walk.displayed)
        return None if deeper is None else told + deeper

    def _spread_of(self, instrument: Instrument) -> SpreadModel:
        for key in (instrument.id, str(instrument.__struct_config__.tag), "*"):
            found = self.spreads.get(key)
            if found is not None:
                return found
        return QuotedSpread()


# --------------------------------------------------------------------------- from facts to records


class _Life:
    """What the journal says of one order."""

    __slots__ = ("arrived", "evidence", "fills", "order", "said")

    def __init__(self, order: Order, evidence: Evidence | None) -> None:
        self.order = order
        self.evidence = evidence
        self.arrived: Nanos | None = None
        self.fills: list[Fill] = []
        self.said = ""

    def hear(self, ts: Nanos) -> None:
        """The venue was heard of it at `ts`; the first word counts."""
        self.arrived = ts if self.arrived is None else min(self.arrived, ts)


def hedge_records(
    steps: Iterable[Step], instruments: Mapping[str, Instrument], *, account: str, model: FillModel | None = None
) -> list[HedgeRecord]:
    """One record for each order of an account, in the order they were sent.

    `instruments` by id must name every instrument traded. `model` None: nothing is expected of the fills.
    """
    lives = _read(steps, account)
    depth = _Depth()
    walks = {fill.id: depth.take(fill) for life in _by_time(lives) for fill in life.fills}
    return [_record(life, instruments[life.order.instrument], walks, model) for life in lives]


def _read(steps: Iterable[Step], account: str) -> list[_Life]:
    lives: dict[str, _Life] = {}
    evidence: dict[str, Evidence | None] = {}
    for step in steps:
        for fact in step.facts:
            if fact.account != account:
                continue
            match fact:
                case TargetSet():
                    evidence |= {line.instrument: fact.evidence for line in fact.lines}
                case Ordered(order=order):
                    lives[order.id] = _Life(order, evidence.get(order.instrument))
                case VenueSaid() if fact.order_id in lives:
                    life = lives[fact.order_id]
                    if fact.what in {"accepted", "rejected"}:
                        life.hear(step.ts)
                    life.said = f"{fact.what}: {fact.text}" if fact.text else fact.what
                case Executed(fill=fill) if fill.order_id in lives:
                    lives[fill.order_id].fills.append(fill)
                    lives[fill.order_id].hear(fill.ts)
                case _:
                    pass
    return list(lives.values())


def _by_time(lives: Sequence[_Life]) -> list[_Life]:
    """Lives in the order in which they met the market: what one took is gone for the next."""
    filled = [life for life in lives if life.fills]
    return sorted(filled, key=lambda life: life.fills[0].ts)


class _Depth:
    """What our own fills say of the display of each quote they met: what filled at the touch is what stood there."""

    def __init__(self) -> None:
        self._at_touch: dict[tuple[str, int, Nanos, Decimal], Decimal] = {}
        self._beyond: dict[tuple[str, int, Nanos, Decimal], Decimal] = {}

    def take(self, fill: Fill) -> Walk | None:
        """How deep a fill walked beyond the display; None for one at the touch or better."""
        side = 1 if fill.quantity > 0 else -1
        key = (fill.instrument, side, fill.quote_ts, fill.touch)
        size, worse = abs(fill.quantity), (fill.price - fill.touch) * side
        if worse <= 0:
            self._at_touch[key] = self._at_touch.get(key, ZERO) + size
            return None
        deep = self._beyond[key] = self._beyond.get(key, ZERO) + size
        return Walk(depth=deep, displayed=self._at_touch.get(key), touch=fill.touch, worse=worse)


def _record(life: _Life, item: Instrument, walks: Mapping[str, Walk | None], model: FillModel | None) -> HedgeRecord:
    order, fills = life.order, life.fills
    size = sum((abs(fill.quantity) for fill in fills), ZERO)
    decision_mid, decision_half = _decision(order.reference)
    found = [walk for walk in (walks.get(fill.id) for fill in fills) if walk is not None]

    def mean(values: Iterable[Decimal]) -> Decimal | None:
        """The average over fills by size."""
        return sum((abs(f.quantity) * v for f, v in zip(fills, values, strict=True)), ZERO) / size if size else None

    def money(start: Iterable[Decimal], end: Iterable[Decimal]) -> Decimal:
        """What it cost to go from one price to another in each fill."""
        legs = zip(fills, start, end, strict=True)
        return sum((price_move_value(item, f.quantity, a, b) for f, a, b in legs), ZERO)

    return HedgeRecord(
        order_id=order.id,
        account=order.account,
        instrument=order.instrument,
        currency=fills[0].currency if fills else settlement_currency(item),
        kind=order.kind,
        asked=order.quantity,
        done=sum((fill.quantity for fill in fills), ZERO),
        decided=order.ts,
        arrived=life.arrived,
        filled=max((fill.ts for fill in fills), default=None),
        quote_age=max((fill.ts - fill.quote_ts for fill in fills), default=None),
        decision_mid=decision_mid,
        decision_half=decision_half,
        price=mean(f.price for f in fills),
        mid=mean(f.mid for f in fills),
        notional=sum((abs(notional_of(item, f.quantity, f.price)) for f in fills), ZERO),
        delay=None if decision_mid is None else money((decision_mid for _ in fills), (f.mid for f in fills)),
        spread=money((f.mid for f in fills), (f.touch for f in fills)),
        impact=money((f.touch for f in fills), (f.price for f in fills)),
        commission=sum((fill.commission for fill in fills), ZERO),
        expected=_expected(item, fills, walks, model, decision_mid, decision_half),
        spread_paid=mean(_paid(fill) for fill in fills),
        touch_half=mean(abs(fill.touch - fill.mid) for fill in fills),
        walks=tuple(found),
        risk_removed=_risk_removed(life, item, sum((fill.quantity for fill in fills), ZERO)),
        closing=order.closing,
        reason=order.reason,
        said=life.said,
    )


def _decision(quote: QuoteRef | None) -> tuple[Decimal | None, Decimal | None]:
    """Middle and half spread of the quote a decision saw."""
    if quote is None or quote.bid is None or quote.ask is None:
        return None, None
    bid, ask = decimal_of(quote.bid), decimal_of(quote.ask)
    return (bid + ask) / 2, (ask - bid) / 2


def _paid(fill: Fill) -> Decimal:
    """The distance from the middle to the price of a unit, what lies beyond the touch apart."""
    side = 1 if fill.quantity > 0 else -1
    return min((fill.price - fill.mid) * side, (fill.touch - fill.mid) * side)


def _expected(
    item: Instrument,
    fills: Sequence[Fill],
    walks: Mapping[str, Walk | None],
    model: FillModel | None,
    mid: Decimal | None,
    half: Decimal | None,
) -> Decimal | None:
    """The slippage the model tells for the sizes filled, around the middle at the decision; None when it cannot say."""
    if model is None or mid is None or not fills:
        return None
    total = ZERO
    for fill in fills:
        worse = model.worse_than_mid(item, mid=mid, half=half, walk=walks.get(fill.id))
        side = 1 if fill.quantity > 0 else -1
        if worse is None or mid + side * worse <= 0:
            return None
        total += price_move_value(item, fill.quantity, mid, mid + side * worse)
    return total


def _risk_removed(life: _Life, item: Instrument, done: Decimal) -> float | None:
    """sigma S sqrt(1 day) (|gap before| - |gap after|), the gap to the middle of the band the decision kept, in units."""
    seen = life.evidence
    if seen is None or seen.spot is None or seen.lo is None or seen.hi is None or life.order.closing:
        return None
    vols = [vol for vol in seen.vols.values() if vol is not None and math.isfinite(vol)]
    if not vols or not (math.isfinite(seen.lo) and math.isfinite(seen.hi)):
        return None
    gap = float(seen.held + seen.working) - 0.5 * (seen.lo + seen.hi)
    left = gap + float(done)
    a_day = float(np.median(vols)) * seen.spot * math.sqrt(1.0 / DAYS_PER_YEAR)
    return (abs(gap) - abs(left)) * float(item.multiplier) * a_day


# --------------------------------------------------------------------------- rolling


class Window(NamedTuple):
    """Figures over the last hedges up to one. `share` and `bp` are means weighted by what was traded; None when unknown."""

    hedges: int
    slippage_bp: float | None
    expected_bp: float | None
    spread_share: float | None
    latency: float | None
    cost: Decimal
    risk_removed: float | None

    @property
    def cost_per_risk(self) -> float | None:
        """Spread, impact and commission per unit of a day's standard deviation taken away; None when none was."""
        if self.risk_removed is None or self.risk_removed <= 0.0:
            return None
        return float(self.cost) / self.risk_removed


def window_of(records: Sequence[HedgeRecord]) -> Window:
    """The figures of some filled hedges in one currency."""
    filled = [record for record in records if record.done]
    known = [r for r in filled if r.slippage is not None]
    told = [r for r in known if r.expected is not None]
    shares = [r for r in filled if r.spread_paid is not None and r.decision_half]
    latencies = [float(r.latency) for r in records if r.latency is not None]
    risks = [r.risk_removed for r in filled if r.risk_removed is not None]
    half = sum((r.decision_half * abs(r.done) for r in shares if r.decision_half is not None), ZERO)
    paid = sum((r.spread_paid * abs(r.done) for r in shares if r.spread_paid is not None), ZERO)
    return Window(
        hedges=len(filled),
        slippage_bp=_in_bp([r.slippage for r in known], known),
        expected_bp=_in_bp([r.expected for r in told], told),
        spread_share=float(paid / half) if half else None,
        latency=sum(latencies) / len(latencies) if latencies else None,
        cost=sum((r.cost for r in filled), ZERO),
        risk_removed=math.fsum(risks) if risks else None,
    )


def _in_bp(costs: Sequence[Decimal | None], records: Sequence[HedgeRecord]) -> float | None:
    traded = sum((r.notional for r in records), ZERO)
    total = sum((cost for cost in costs if cost is not None), ZERO)
    return float(total / traded) / ONE_BP if traded else None


def rolling_windows(records: Sequence[HedgeRecord], size: int) -> list[Window]:
    """For each record the figures of the last `size` up to it, those of its own instrument. ValueError under one."""
    if size < 1:
        raise ValueError(f"rolling window: expected at least one hedge, found {size}")
    seen: dict[str, list[HedgeRecord]] = {}
    out = []
    for record in records:
        own = seen.setdefault(record.instrument, [])
        own.append(record)
        out.append(window_of(own[-size:]))
    return out


def rolling_effectiveness(options: Floats, hedge: Floats, window: int) -> Floats:
    """1 - var(d(options + hedge)) / var(d options) over the last `window` intervals; NaN before they are there.

    NaN too where the options did not move. Shape: options and hedge (n,), changes of P&L at mid by interval; result (n,).
    ValueError under two intervals.
    """
    if window < 2:
        raise ValueError(f"rolling effectiveness: expected a window of at least two intervals, found {window}")
    out = np.full(len(options), np.nan)
    if len(options) < window:
        return out
    view = np.lib.stride_tricks.sliding_window_view
    bare = np.var(view(options, window), axis=1)
    both = np.var(view(options + hedge, window), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        out[window - 1 :] = np.where(bare > 0.0, 1.0 - both / bare, np.nan)
    return out
