"""An option order is how a wanted holding meets its quote: across the touch at once, or at a limit inside the spread.

Law: nothing is asked for blind. A contract without a good quote is waited for, with the reason on the record; an order
that was refused, rejected or left unfilled is asked for again only after `patience`, from the quote of then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.events import Evidence, Target, TargetLine
from bot.core.ports import Chain, StrategyView
from bot.core.quiet import FOREVER
from bot.domain.instruments import OptionContract
from bot.domain.orders import QuoteRef
from bot.domain.units import NEVER, NS_PER_MINUTE, Nanos, decimal_of, span

ZERO: Final = Decimal(0)
Style: TypeAlias = Literal["cross", "limit"]


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """How options are traded: market orders that cross the touch, or limits.

    A limit stands `aggression` of the half spread from the middle toward the other side: 0 the middle, 1 the touch, -1 our
    own side. After `patience` an order that did not fill is dropped and asked for anew. A quote older than `stale_after`
    (None: any age) or wider than `max_spread` of its middle (None: any width) is not traded on.
    """

    style: Style = "cross"
    aggression: float = 0.0
    patience: Nanos = 5 * NS_PER_MINUTE
    stale_after: Nanos | None = None
    max_spread: float | None = None

    def __post_init__(self) -> None:
        if not -1.0 <= self.aggression <= 1.0:
            raise ValueError(f"aggression: expected -1 to 1, found {self.aggression!r}")
        if self.patience <= 0:
            raise ValueError(f"patience: expected longer than zero, found {self.patience} ns")
        if self.stale_after is not None and self.stale_after <= 0:
            raise ValueError(f"stale_after: expected longer than zero, found {self.stale_after} ns")
        if self.max_spread is not None and not self.max_spread > 0.0:
            raise ValueError(f"max_spread: expected a share above 0, found {self.max_spread!r}")


class Asked(msgspec.Struct, frozen=True):
    """What was last asked for in one instrument, and when."""

    instrument: str
    quantity: Decimal
    ts: Nanos


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A holding wanted of one contract, the number before lots, and why."""

    instrument: str
    quantity: Decimal
    unrounded: float
    reason: str


def good_rows(chain: Chain, now: Nanos, execution: Execution) -> NDArray[np.bool_]:
    """Which contracts have a quote to trade on: two-sided, uncrossed, above 0, young and narrow enough. Shape: (n,)."""
    bid, ask = np.asarray(chain.bid), np.asarray(chain.ask)
    with np.errstate(invalid="ignore"):
        good = (bid > 0.0) & (bid <= ask) & (np.asarray(chain.quote_ts) != NEVER)
        if execution.stale_after is not None:
            good &= now - np.asarray(chain.quote_ts) <= execution.stale_after
        if execution.max_spread is not None:
            good &= (ask - bid) <= execution.max_spread * 0.5 * (ask + bid) * (1.0 + 1e-12)
    return np.asarray(good)


def why_not(chain: Chain, row: int, now: Nanos, execution: Execution) -> str:
    """Why a contract is not traded on its present quote, in words; empty when it can be."""
    name = chain.ids[row]
    bid, ask, ts = float(chain.bid[row]), float(chain.ask[row]), int(chain.quote_ts[row])
    if ts == NEVER:
        return f"{name} has no quote yet"
    if math.isnan(bid) or math.isnan(ask):
        return f"a side of the quote of {name} is withdrawn"
    if bid > ask:
        return f"the quote of {name} is crossed, {bid:g} above {ask:g}"
    if bid <= 0.0:
        return f"{name} has no bid"
    if execution.stale_after is not None and now - ts > execution.stale_after:
        return f"the quote of {name} is older than {span(execution.stale_after)}"
    if execution.max_spread is not None and ask - bid > execution.max_spread * 0.5 * (ask + bid) * (1.0 + 1e-12):
        return f"the quote of {name} is wider than {execution.max_spread:.1%} of its middle"
    return ""


def limit_price(bid: float, ask: float, *, side: int, aggression: float, tick: Decimal | None) -> Decimal:
    """The price an order of a side (1 buys, -1 sells) is limited to, on the tick that gives nothing away.

    >>> limit_price(2.0, 2.4, side=1, aggression=0.0, tick=Decimal("0.05"))
    Decimal('2.20')
    >>> limit_price(2.0, 2.45, side=-1, aggression=0.0, tick=Decimal("0.05"))
    Decimal('2.25')
    """
    low, high = decimal_of(bid), decimal_of(ask)
    price = (low + high) / 2 + side * decimal_of(aggression) * (high - low) / 2
    if tick is None:
        return price
    rounding = ROUND_FLOOR if side > 0 else ROUND_CEILING
    found = (price / tick).to_integral_value(rounding) * tick
    return max(found, tick)


class Worker:
    """Turns wanted holdings into targets, remembering what was asked when. Its `asked` belongs in a strategy's memory."""

    def __init__(self, *, underlying: str, book: str, execution: Execution, policy: str) -> None:
        self.underlying = underlying
        self.book = book
        self.execution = execution
        self.policy = policy
        self.asked: tuple[Asked, ...] = ()

    def targets(self, view: StrategyView, chain: Chain, wanted: Sequence[Wanted]) -> list[Target]:
        """The targets that bring the book toward what is wanted; what cannot be asked for now is skipped with a reason."""
        rows = {name: i for i, name in enumerate(chain.ids)}
        last = {item.instrument: item for item in self.asked}
        made: list[Target] = []
        now = view.now
        for want in sorted(wanted, key=lambda w: w.instrument):
            key = want.instrument
            row = rows.get(key)
            if row is None or self._last_trade(view, key) <= now:
                last.pop(key, None)
                continue
            held, working = view.held(key), view.working(key)
            asked = last.get(key)
            waited = asked is None or now - asked.ts >= self.execution.patience
            if held + working == want.quantity:
                if working and waited:
                    made.append(self._drop(view, chain, row, held, working, asked))
                    last.pop(key, None)
                elif not working:
                    last.pop(key, None)
                continue
            if asked is not None and asked.quantity == want.quantity and not waited:
                continue
            if not view.is_open(key):
                view.skip(self.underlying, f"the session of {key} is closed")
                continue
            fault = why_not(chain, row, now, self.execution)
            if fault:
                view.skip(self.underlying, f"{fault}; waiting")
                continue
            made.append(self._ask(view, chain, row, want, held, working))
            last[key] = Asked(key, want.quantity, now)
        self.asked = tuple(last[key] for key in sorted(last))
        return made

    def closing(self, view: StrategyView, chain: Chain, keys: Sequence[str]) -> list[Target]:
        """The targets that close what is held of these contracts at the end of a session; one without a good quote is left."""
        rows = {name: i for i, name in enumerate(chain.ids)}
        made = []
        for key in sorted(set(keys)):
            row = rows.get(key)
            if row is None or self._last_trade(view, key) <= view.now or not view.held(key) + view.working(key):
                continue
            fault = why_not(chain, row, view.now, self.execution)
            if fault:
                view.skip(self.underlying, f"{fault}; left open at the end of the session")
                continue
            line = TargetLine(key, ZERO, 0.0)
            evidence = self._evidence(view, chain, row)
            reason = f"{self.policy}: the session ends: close what was traded"
            made.append(Target(book=self.book, lines=(line,), reason=reason, evidence=evidence, closing=True))
        return made

    @staticmethod
    def _last_trade(view: StrategyView, key: str) -> Nanos:
        contract = view.universe.get(key)
        return contract.last_trade if isinstance(contract, OptionContract) else FOREVER

    def _drop(
        self, view: StrategyView, chain: Chain, row: int, held: Decimal, working: Decimal, asked: Asked | None
    ) -> Target:
        """The target that takes back an order nobody filled."""
        since = "" if asked is None else f" for {span(view.now - asked.ts)}"
        reason = f"{self.policy}: {working} {chain.ids[row]} unfilled{since}: dropped, to be asked for anew"
        line = TargetLine(chain.ids[row], held, float(held))
        return Target(book=self.book, lines=(line,), reason=reason, evidence=self._evidence(view, chain, row))

    def _ask(self, view: StrategyView, chain: Chain, row: int, want: Wanted, held: Decimal, working: Decimal) -> Target:
        line = TargetLine(want.instrument, want.quantity, want.unrounded)
        evidence = self._evidence(view, chain, row)
        if self.execution.style == "cross":
            return Target(book=self.book, lines=(line,), reason=want.reason, evidence=evidence)
        limit = limit_price(
            float(chain.bid[row]),
            float(chain.ask[row]),
            side=1 if want.quantity > held + working else -1,
            aggression=self.execution.aggression,
            tick=view.universe.get(want.instrument).tick,
        )
        return Target(
            book=self.book,
            lines=(line,),
            reason=f"{want.reason}; at {limit} or better",
            evidence=evidence,
            kind="limit",
            limits={want.instrument: limit},
        )

    def _evidence(self, view: StrategyView, chain: Chain, row: int) -> Evidence:
        risk = view.risk(self.underlying)
        greeks = risk.greeks
        return Evidence(
            underlying=self.underlying,
            spot=known(risk.spot),
            quote=QuoteRef(known(chain.bid[row]), known(chain.ask[row]), int(chain.quote_ts[row])),
            vols={chain.ids[row]: known(chain.vol[row])},
            vol_age=None if risk.vol_ts == NEVER else view.now - risk.vol_ts,
            delta=known(greeks.delta),
            gamma=known(greeks.gamma),
            vega=known(greeks.vega),
            theta=known(greeks.theta),
            held=view.held(chain.ids[row]),
            working=view.working(chain.ids[row]),
            policy=self.policy,
        )


def half_spreads(view: StrategyView, targets: Sequence[Target]) -> float:
    """What it would cost to cross half the spread with all that these targets ask for, in currency."""
    total = 0.0
    for target in targets:
        seen = target.evidence
        if seen is None or seen.quote is None or seen.quote.bid is None or seen.quote.ask is None:
            continue
        for line in target.lines:
            if line.quantity == seen.held:  # an order is taken back: nothing is traded
                continue
            multiplier = float(view.universe.get(line.instrument).multiplier)
            trade = abs(float(line.quantity - seen.held - seen.working))
            total += trade * multiplier * 0.5 * (seen.quote.ask - seen.quote.bid)
    return total


def known(value: float) -> float | None:
    """A number as a record keeps it: None for one that is not known."""
    found = float(value)
    return found if math.isfinite(found) else None


def is_over(view: StrategyView, key: str) -> bool:
    """True for an option that has expired by now."""
    contract = view.universe.get(key)
    return isinstance(contract, OptionContract) and contract.expiry <= view.now


def own_quantities(view: StrategyView, chain: Chain) -> Mapping[str, float]:
    """Held plus working of the book, by live contract; what is nothing is left out."""
    found = {key: view.exposure(key) for key in chain.ids}
    return {key: quantity for key, quantity in found.items() if quantity}
