"""Merger arbitrage holds targets of announced deals against their acquirers: long what is taken over, short what is paid with.

Law: it acts only through targets. A price it cannot trust is a decision not made, with the reason on the record; what is
heard of a deal (amended, broken, closed) changes the position at once; no deal may lose more than its budget if it breaks.

    p  = (S - S_down) / (PV(offer) - S_down)                       the odds the price implies
    h  = p dPV/dA + (1 - p) beta S_down / A                        acquirer's shares short per share of the target
    n  = budget / (S - S_down + h A jump)                          shares of the target

S and A are the prices of target and acquirer, S_down where the target would trade without the deal, beta the return of the
target per return of the acquirer then, jump the acquirer's return on a break.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, Literal, NamedTuple

import msgspec

from bot.core.errors import DataError
from bot.core.events import Alarm, Corporate, Notice, Target, TargetLine
from bot.core.notices import DealNotice, read_notice
from bot.core.ports import Band, Figures, StrategyView
from bot.core.quiet import QuietBox
from bot.core.sight import Sight, evidence, needed_over_shown, paid_so_far, sight
from bot.domain.deals import Collar, DealTerms
from bot.domain.instruments import round_to_lot
from bot.domain.units import NS_PER_DAY, Nanos, Rate, Vol, iso, years_between
from bot.pricing import deal as deals
from strategies.policies.decide import decide

ZERO, ONE = Decimal(0), Decimal(1)
LEAST_LOSS: Final = 0.01
"""A break is taken to cost at least this share of the target's price: a price at or below its break price still has risk."""
LAST_DAY: Final = 1.0 / 365.0
"""Within so many years of the expected close a return a year says nothing."""
BREAK_DOUBT: Final = 0.10
"""How far the break price is moved to show what it matters."""


class Deal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One deal: its terms, when it should close, and where the target goes if it does not.

    `break_price` says where, or `unaffected` moved by `market_beta` with a `market`: S0 (1 + market_beta (M / M0 - 1)),
    M0 `market_start` or the first price seen. `beta` is the target's return per return of the acquirer after a break,
    `acquirer_jump` the acquirer's return on one. `quantity` holds so many shares instead of sizing by budget.
    """

    target: str
    acquirer: str | None = None
    cash: float = 0.0
    ratio: float = 0.0
    collar: Collar | None = None
    expected_close: Nanos
    break_price: float | None = None
    unaffected: float | None = None
    market: str | None = None
    market_beta: float = 1.0
    market_start: float | None = None
    beta: float = 0.0
    acquirer_jump: float = 0.0
    acquirer_vol: Vol = 0.3
    rate: Rate = 0.0
    dividend: Rate = 0.0
    target_dividend: Rate = 0.0
    budget: float | None = None
    quantity: float | None = None
    max_shares: float | None = None

    def __post_init__(self) -> None:
        try:
            terms = DealTerms(cash=self.cash, ratio=self.ratio, collar=self.collar)
        except ValueError as fault:
            raise ValueError(f"{self.target}: {fault}") from fault
        if terms.needs_acquirer and self.acquirer is None:
            raise ValueError(f"{self.target}: acquirer: expected one beside a ratio or a collar, found none")
        if self.acquirer == self.target:
            raise ValueError(f"{self.target}: acquirer: expected another instrument, found the target itself")
        if (self.break_price is None) == (self.unaffected is None):
            found = "neither" if self.break_price is None else "both"
            raise ValueError(f"{self.target}: expected one of break_price and unaffected, found {found}")
        if self.beta and self.acquirer is None:
            raise ValueError(f"{self.target}: beta: expected an acquirer to hedge with beside it, found none")
        for name in ("break_price", "unaffected", "market_start", "budget", "quantity", "max_shares", "acquirer_vol"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value < math.inf:
                raise ValueError(f"{self.target}: {name}: expected a number >= 0, found {value}")
        for name in ("market_beta", "beta", "acquirer_jump", "rate", "dividend", "target_dividend"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{self.target}: {name}: expected a finite number, found {getattr(self, name)}")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Where a deal stood when it was entered, for the report."""

    ts: Nanos
    price: float
    offer: float
    probability: float
    annualised: float | None
    hedge: float
    loss: float


class DealMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one deal. `wanted` None: not entered yet; `asked` the last number the venue was asked for."""

    status: Literal["open", "broken", "closing", "closed"]
    cash: float
    ratio: float
    collar: Collar | None
    expected_close: Nanos
    break_price: float | None
    market_start: float | None
    opened: Decimal
    wanted: Decimal | None = None
    asked: Decimal | None = None
    why: str = ""
    entry: Entry | None = None
    least: float | None = None
    greatest: float | None = None


class AcquirerMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What the book owned of an acquirer, and whether it was ever a hedge: before, it is not touched."""

    opened: Decimal
    hedging: bool = False


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """All a restarted strategy needs, and the counts of its report."""

    began: Nanos
    deals: dict[str, DealMemory]
    acquirers: dict[str, AcquirerMemory]
    hedges: int = 0
    shares: Decimal = ZERO
    over_shown: float = 0.0


class Standing(NamedTuple):
    """A deal at this instant, per share of the target; NaN where it is not known, `fault` why nothing can be decided."""

    price: float
    acquirer: float
    offer: float
    down: float
    probability: float
    hedge: float
    loss: float
    spread: float
    annualised: float
    fault: str = ""


NAN: Final = math.nan
UNKNOWN: Final = Standing(NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN)
GAUGES: Final = ("probability", "spread", "annualised", "loss_if_broken", "hedge_ratio")


class MergerArbitrage:
    """Any number of deals of one book. Implements `Strategy`, `HearsNotices`, `HearsCorporate`, `Restores`, `Reports`."""

    def __init__(
        self,
        *,
        deals: Sequence[Deal | Mapping[str, object]],
        name: str = "merger_arbitrage",
        book: str = "main",
        budget: float | None = None,
        half_width: float = 0.0,
        to: Literal["edge", "centre"] = "centre",
        slack: float = 0.10,
        min_return: float | None = None,
        exit_return: float | None = None,
        look: Nanos = NS_PER_DAY,
        stale_after: Nanos | None = None,
    ) -> None:
        self.name, self.book = name, book
        self._deals = {found.target: found for found in map(_deal, deals)}
        self._budget, self._slack = budget, slack
        self._half_width, self._to = half_width, to
        self._min_return, self._exit_return = min_return, exit_return
        self._look, self._stale_after = look, stale_after
        self._memory: Memory | None = None
        self._refuse_nonsense(len(deals))

    def _refuse_nonsense(self, given: int) -> None:
        """ValueError for a table that means nothing."""
        who = f"merger_arbitrage {self.name!r}"
        if not self._deals or len(self._deals) < given:
            found = "none" if not self._deals else "one target twice"
            raise ValueError(f"{who}: deals: expected at least one, each target once, found {found}")
        both = sorted({d.acquirer for d in self._deals.values() if d.acquirer is not None} & set(self._deals))
        if both:
            raise ValueError(f"{who}: deals: expected no acquirer that is a target too, found {both[0]}")
        bare = [d.target for d in self._deals.values() if d.quantity is None and d.budget is None]
        if bare and self._budget is None:
            raise ValueError(f"{who}: {bare[0]}: expected a budget or a quantity, found neither")
        for name, value in (("half_width", self._half_width), ("slack", self._slack), ("budget", self._budget or 0.0)):
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{who}: {name}: expected a number >= 0, found {value}")
        enter, leave = self._min_return, self._exit_return
        if enter is not None and leave is not None and leave > enter:
            raise ValueError(f"{who}: exit_return: expected at most min_return {enter}, found {leave}")
        if self._look <= 0:
            raise ValueError(f"{who}: look: expected a length of time, found {self._look}")

    # ------------------------------------------------------------------ the Strategy protocol

    def start(self, view: StrategyView) -> Sequence[Target]:
        """The deals worth entering, each with its hedge."""
        acquirers = sorted({d.acquirer for d in self._deals.values() if d.acquirer is not None})
        self._memory = Memory(
            began=view.now,
            deals={
                key: DealMemory(
                    status="open",
                    cash=d.cash,
                    ratio=d.ratio,
                    collar=d.collar,
                    expected_close=d.expected_close,
                    break_price=d.break_price,
                    market_start=d.market_start,
                    opened=view.held(key),
                )
                for key, d in self._deals.items()
            },
            acquirers={key: AcquirerMemory(opened=view.held(key)) for key in acquirers},
        )
        view.wake_at(view.now + self._look, "look")
        targets = self._decide(view)
        self._keep(view)
        return targets

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """A quote moved."""
        return self._decide(view)

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """Time passed: a deal nobody quotes is looked at again."""
        view.wake_at(view.now + self._look, "look")
        return self._decide(view)

    def stop(self, view: StrategyView) -> Sequence[Target]:
        """What was traded is undone: back to what was owned. A deal that closed leaves nothing, and its hedge is none."""
        memory = self._memory
        if memory is None:
            return ()
        over = {key for key, own in memory.deals.items() if self._merged(view, key, own)}
        wanted = {key: own.opened for key, own in memory.deals.items() if key not in over}
        closed = {self._deals[key].acquirer for key in over}
        wanted |= {key: ZERO if key in closed else own.opened for key, own in memory.acquirers.items() if own.hedging}
        reason = "the session ends: back to what was owned"
        return [
            Target(book=self.book, lines=(TargetLine(key, q, float(q)),), reason=reason, closing=True)
            for key, q in sorted(wanted.items())
            if view.held(key) + view.working(key) != q
        ]

    def quiet(self, view: StrategyView) -> QuietBox | None:
        """No certificate: it is woken at every instant of what it watches."""
        return None

    def watches(self) -> Sequence[str]:
        """Targets, acquirers, and the markets that move break prices."""
        markets = {d.market for d in self._deals.values() if d.market is not None}
        return sorted({*self.trades(), *markets})

    def trades(self) -> Sequence[str]:
        """Targets and acquirers."""
        return sorted({*self._deals, *(d.acquirer for d in self._deals.values() if d.acquirer is not None)})

    def unprotected(self, held: Mapping[str, float], worth: float, prices: Mapping[str, float]) -> Mapping[str, float]:
        """The targets it holds, without the acquirers it is short of."""
        return {key: quantity for key, quantity in held.items() if key in self._deals}

    def restore(self, view: StrategyView, memory: bytes) -> None:
        """Go on from memory."""
        self._memory = msgspec.json.decode(memory, type=Memory | None)

    # ------------------------------------------------------------------ words from outside

    def notice(self, view: StrategyView, notice: Notice) -> Sequence[Target]:
        """Terms amended, a deal broken or closed; a notice that cannot be read is an alarm and changes nothing."""
        try:
            found = read_notice(notice)
        except DataError as fault:
            view.alarm(Alarm(code="bad_notice", text=str(fault), ts=view.now))
            return ()
        memory = self._memory
        if memory is None or not isinstance(found, DealNotice) or found.target not in memory.deals:
            return ()
        self._hear(view, found)
        targets = self._decide(view)
        self._keep(view)
        return targets

    def _hear(self, view: StrategyView, found: DealNotice) -> None:
        own = self._own(found.target)
        if own.status == "closed":
            return
        if found.what == "broken":
            self._note(found.target, status="broken", wanted=ZERO, why=found.text or "the deal is off")
            self._end_gauges(view, found.target)
            return
        changes: dict[str, object] = {
            name: value for name in ("expected_close", "break_price") if (value := getattr(found, name)) is not None
        }
        if found.cash is not None or found.ratio is not None:
            changes |= {
                "cash": own.cash if found.cash is None else found.cash,
                "ratio": own.ratio if found.ratio is None else found.ratio,
                "collar": None,
            }
            fault = self._bad_terms(found.target, changes)
            if fault:
                view.alarm(Alarm(code="bad_notice", text=fault, ts=view.now, underlying=found.target))
                return
        status = "closing" if found.what == "closed" else "open"
        if status == "closing":
            self._end_gauges(view, found.target)
        if found.what == "amended" and own.wanted is not None:
            changes |= {"wanted": None, "why": "terms amended"}  # sized anew, up or down
        self._note(found.target, status=status, **changes)

    def _bad_terms(self, target: str, changes: Mapping[str, object]) -> str:
        """Why amended terms cannot be traded; empty when they can."""
        try:
            terms = msgspec.convert({k: changes[k] for k in ("cash", "ratio")}, DealTerms)
        except msgspec.ValidationError as fault:
            return f"{target}: {fault}"
        missing = terms.needs_acquirer and self._deals[target].acquirer is None
        return f"{target}: a ratio was announced and no acquirer is named" if missing else ""

    def corporate(self, view: StrategyView, event: Corporate) -> Sequence[Target]:
        """A merger is done: the target is gone, and what is left of the hedge goes."""
        memory = self._memory
        if memory is not None and event.what == "merger" and event.instrument in memory.deals:
            self._note(event.instrument, status="closed", wanted=ZERO, why=event.text or "the merger is done")
            self._end_gauges(view, event.instrument)
            self._keep(view)
        return self._decide(view)

    # ------------------------------------------------------------------ one decision

    def _decide(self, view: StrategyView) -> list[Target]:
        before = self._memory
        if before is None:
            return []
        targets: list[Target] = []
        wanted = dict.fromkeys(before.acquirers, 0.0)
        blocked: dict[str, str] = {}
        for key, found in self._deals.items():
            target, short, fault = self._decide_deal(view, key)
            targets += [] if target is None else [target]
            if found.acquirer is not None:
                wanted[found.acquirer] -= short
                if fault:
                    blocked[found.acquirer] = fault
        for acquirer, want in wanted.items():
            if acquirer in blocked:
                continue  # said on the record where it was found
            hedge = self._hedge(view, acquirer, want)
            targets += [] if hedge is None else [hedge]
        if self._memory is not before:
            self._keep(view)
        return targets

    def _decide_deal(self, view: StrategyView, key: str) -> tuple[Target | None, float, str]:
        """The target of one deal's shares, how many of the acquirer to be short for it, and why nothing can be said."""
        own = self._own(key)
        if own.status == "closed":
            return None, 0.0, ""
        standing = self._standing(view, key)
        if own.status == "open":
            self._show(view, key, standing)
        if standing.fault and own.status != "broken":
            if own.wanted is None or own.wanted or self._exposure(view, key):
                view.skip(key, standing.fault)
            return None, 0.0, standing.fault if self._exposure(view, key) else ""
        if own.status == "open":
            self._size(view, key, standing)
        target, shares = self._trade(view, key)
        hedge = 0.0 if own.status == "broken" else standing.hedge
        return target, hedge * shares, ""

    def _standing(self, view: StrategyView, key: str) -> Standing:
        """Where a deal stands: what its price implies, what hedges it and what it may lose."""
        found, own = self._deals[key], self._own(key)
        seen = sight(view, key, stale_after=self._stale_after)
        paid_with = None if found.acquirer is None else sight(view, found.acquirer, stale_after=self._stale_after)
        fault = seen.fault or ("" if paid_with is None else paid_with.fault)
        down, why = self._down(view, key)
        fault = fault or why
        if fault:
            return UNKNOWN._replace(price=seen.price, fault=fault)
        A = NAN if paid_with is None else paid_with.price
        tau = max(years_between(view.now, own.expected_close), 0.0)
        terms = DealTerms(cash=own.cash, ratio=own.ratio, collar=own.collar)
        price = 0.0 if math.isnan(A) else A
        worth = deals.offer_value(terms, price, tau, rate=found.rate, dividend=found.dividend, vol=found.acquirer_vol)
        offer = float(worth.value) + seen.price * (1.0 - math.exp(-found.target_dividend * tau))
        p = 1.0 if own.status == "closing" else float(deals.implied_probability(seen.price, offer, down))
        if math.isnan(p):
            text = (
                f"the offer for {key} is worth {offer:.4f}, no more than its break price {down:.4f}: nothing is implied"
            )
            return UNKNOWN._replace(price=seen.price, acquirer=A, offer=offer, down=down, fault=text)
        hedge = 0.0
        if not math.isnan(A):
            hedge = float(deals.hedge_ratio(p, worth.delta, beta=found.beta, down=down, acquirer=A))
        loss = deals.loss_if_broken(seen.price, down, hedge=hedge, acquirer=price, acquirer_jump=found.acquirer_jump)
        at_close = offer * math.exp(found.rate * tau)
        return Standing(
            price=seen.price,
            acquirer=A,
            offer=offer,
            down=down,
            probability=p,
            hedge=hedge,
            loss=float(loss),
            spread=at_close - seen.price,
            annualised=float(deals.annualised(seen.price, at_close, tau)) if tau > LAST_DAY else NAN,
        )

    def _down(self, view: StrategyView, key: str) -> tuple[float, str]:
        """The break price now, and why there is none."""
        found, own = self._deals[key], self._own(key)
        if own.break_price is not None:
            return own.break_price, ""
        unaffected = found.unaffected or 0.0
        if found.market is None:
            return unaffected, ""
        market = sight(view, found.market)
        if math.isnan(market.price):
            return NAN, f"no price of {found.market} to move the break price of {key} by"
        if own.market_start is None:
            self._note(key, market_start=market.price)
        start = market.price if own.market_start is None else own.market_start
        return deals.down_price(unaffected, beta=found.market_beta, market=market.price, market_start=start), ""

    def _show(self, view: StrategyView, key: str, standing: Standing) -> None:
        numbers = (standing.probability, standing.spread, standing.annualised, standing.loss, standing.hedge)
        for name, value in zip(GAUGES, numbers, strict=True):
            view.gauge(f"{name}:{key}", value)
        p, own = standing.probability, self._own(key)
        if math.isfinite(p) and (own.least is None or own.greatest is None or not own.least <= p <= own.greatest):
            least, greatest = (p if x is None else pick(x, p) for x, pick in ((own.least, min), (own.greatest, max)))
            self._note(key, least=least, greatest=greatest)

    @staticmethod
    def _end_gauges(view: StrategyView, key: str) -> None:
        for name in GAUGES:
            view.gauge(f"{name}:{key}", math.nan)

    def _size(self, view: StrategyView, key: str, standing: Standing) -> None:
        """Enter what pays enough, leave what no longer does, and keep the loss on a break within its budget."""
        own, pays = self._own(key), standing.annualised
        if own.wanted and self._exit_return is not None and pays < self._exit_return:  # NaN on the last day: it stays
            why = f"pays {pays:.2%} a year, exit {self._exit_return:.2%}"
            self._note(key, wanted=ZERO, why=why)
            return
        if not own.wanted:
            if self._min_return is not None and not pays >= self._min_return:
                if own.wanted is None and own.asked:
                    self._note(
                        key, wanted=ZERO, why=f"amended terms pay {pays:.2%} a year, least {self._min_return:.2%}"
                    )
                return
            if own.wanted is not None and self._min_return is None:
                return
            shares, why = self._fitting(view, key, standing)
            word = f"p {standing.probability:.3f}, {pays:.2%} a year; {why}"
            self._note(key, wanted=shares, why=word, entry=own.entry or _entry(view.now, standing))
            return
        bound = self._bound(key)
        loss = max(standing.loss, LEAST_LOSS * standing.price)
        if bound is not None and float(own.wanted) * loss > bound * (1.0 + self._slack):
            shares, why = self._fitting(view, key, standing)
            self._note(key, wanted=min(shares, own.wanted), why=f"it may lose {float(own.wanted) * loss:,.0f}: {why}")

    def _fitting(self, view: StrategyView, key: str, standing: Standing) -> tuple[Decimal, str]:
        """The shares that fit the budget, in whole lots, and why so many."""
        found, bound = self._deals[key], self._bound(key)
        loss = max(standing.loss, LEAST_LOSS * standing.price)
        exact, why = found.quantity or 0.0, "as many as were asked for"
        if bound is not None:
            exact, why = bound / loss, f"a break loses {loss:.4f} a share, budget {bound:,.0f}"
        if found.max_shares is not None and exact > found.max_shares:
            exact, why = found.max_shares, f"{why}, {found.max_shares:g} shares at most"
        return round_to_lot(exact, view.universe.get(key).lot or ONE, toward_zero=True), why

    def _bound(self, key: str) -> float | None:
        """What the deal may lose if it breaks; None where the number of shares was given."""
        found = self._deals[key]
        if found.quantity is not None:
            return None
        return found.budget if found.budget is not None else self._budget

    def _trade(self, view: StrategyView, key: str) -> tuple[Target | None, float]:
        """The target of the shares where they are not what is wanted, and the number to hedge.

        That is the wanted one where the venue is asked for it the first time, so that both legs leave together; after that
        what is there, so that shares nobody sells are not hedged. While a deal closes its shares are not traded.
        """
        own, there = self._own(key), self._exposure(view, key)
        wanted = there if own.wanted is None or own.status == "closing" else own.wanted
        if wanted == there:
            return None, float(there)
        seen = sight(view, key, stale_after=self._stale_after)
        if seen.fault:
            view.skip(key, seen.fault)
            return None, float(there)
        first = own.asked != wanted
        if first:
            self._note(key, asked=wanted)
        self._count_need(seen, wanted - there)
        found = evidence(view, key, underlying=key, policy=self.name)
        line = TargetLine(key, wanted, float(wanted))
        target = Target(book=self.book, lines=(line,), reason=f"{self.name}: {own.why}", evidence=found)
        return target, float(wanted if first else there)

    def _hedge(self, view: StrategyView, acquirer: str, want: float) -> Target | None:
        """The target of an acquirer where what is held left its band; without a deal to hedge the band is nothing wide."""
        own = self._known().acquirers[acquirer]
        if want and not own.hedging:
            self._note_acquirer(acquirer)
        elif not own.hedging:
            return None
        item = view.universe.get(acquirer)
        want = want / float(item.multiplier) + 0.0
        width = self._half_width / float(item.multiplier) if want else 0.0
        held = view.held(acquirer) + view.working(acquirer)
        view.gauge(f"gap:{acquirer}", float(held) - want)
        band = Band(want - width, want + width, want if self._to == "centre" else None)
        found = decide(band, float(held), item.lot, policy=self.name)
        if found.stay:
            return None
        seen = sight(view, acquirer, stale_after=self._stale_after)
        if seen.fault:
            view.skip(acquirer, seen.fault)
            return None
        gap = found.quantity - held
        self._count_need(seen, gap)
        memory = self._known()
        self._memory = msgspec.structs.replace(memory, hedges=memory.hedges + 1, shares=memory.shares + abs(gap))
        saw = evidence(
            view, acquirer, underlying=acquirer, policy=self.name, delta=-want, band=(float(band.lo), float(band.hi))
        )
        reason = found.reason if want else f"{self.name}: no deal is left to hedge with {acquirer}"
        line = TargetLine(acquirer, found.quantity, found.unrounded)
        return Target(book=self.book, lines=(line,), reason=reason, evidence=saw)

    # ------------------------------------------------------------------ what is known

    def _merged(self, view: StrategyView, key: str, own: DealMemory) -> bool:
        """True for a target that is there no more; also where nobody told it, as in account `static`."""
        untold = bool(own.opened or own.asked) and own.wanted != ZERO and not self._exposure(view, key)
        return own.status == "closed" or untold

    @staticmethod
    def _exposure(view: StrategyView, key: str) -> Decimal:
        return view.held(key) + view.working(key)

    def _known(self) -> Memory:
        assert self._memory is not None  # made at the start
        return self._memory

    def _own(self, key: str) -> DealMemory:
        return self._known().deals[key]

    def _note(self, key: str, **changes: object) -> None:
        memory = self._known()
        changed = msgspec.structs.replace(memory.deals[key], **changes)
        self._memory = msgspec.structs.replace(memory, deals={**memory.deals, key: changed})

    def _note_acquirer(self, key: str) -> None:
        memory = self._known()
        changed = msgspec.structs.replace(memory.acquirers[key], hedging=True)
        self._memory = msgspec.structs.replace(memory, acquirers={**memory.acquirers, key: changed})

    def _count_need(self, seen: Sight, gap: Decimal) -> None:
        need = needed_over_shown(seen, gap)
        memory = self._known()
        if need > memory.over_shown:
            self._memory = msgspec.structs.replace(memory, over_shown=need)

    def _keep(self, view: StrategyView) -> None:
        view.memory(self.name, self._known())

    # ------------------------------------------------------------------ the report

    def figures(self, view: StrategyView) -> Figures:
        """Each deal as its price tells it, what it may lose, and what hedging it took."""
        memory = self._memory
        if memory is None:
            return {}
        tables: dict[str, Mapping[str, float | str | None]] = {
            key: dict(self._deal_rows(view, key)) for key in self._deals
        }
        tables["hedging"] = dict(self._hedging_rows(view, memory))
        return tables

    def _deal_rows(self, view: StrategyView, key: str) -> Iterator[tuple[str, float | str | None]]:
        own, found = self._own(key), self._deals[key]
        standing = UNKNOWN if own.status in {"closed", "broken"} else self._standing(view, key)
        held = float(view.held(key))
        yield "status", own.status
        yield "why", own.why or None
        yield "shares held", held
        if own.entry is not None:
            yield "entered", iso(own.entry.ts)
            yield "price at entry", own.entry.price
            yield "offer at entry, present value", own.entry.offer
            yield "implied probability at entry", own.entry.probability
            yield "annualised return at entry", own.entry.annualised
            yield "hedge ratio at entry", own.entry.hedge
            yield "loss a share at entry, if it breaks", own.entry.loss
        if own.status in {"closed", "broken"}:
            yield "implied probability, least", own.least
            yield "implied probability, greatest", own.greatest
            return
        yield "target", _known(standing.price)
        yield "acquirer", _known(standing.acquirer)
        yield "offer, present value", _known(standing.offer)
        yield "break price", _known(standing.down)
        yield "spread to the close", _known(standing.spread)
        yield "annualised return", _known(standing.annualised)
        yield "expected close", iso(own.expected_close)
        yield "implied probability", _known(standing.probability)
        yield "implied probability, least", own.least
        yield "implied probability, greatest", own.greatest
        yield "hedge ratio", _known(standing.hedge)
        yield "loss if it breaks", _known(standing.loss * held)
        yield "budget", self._bound(key)
        if found.acquirer is not None and math.isfinite(standing.hedge):
            doubt = max(abs(self._hedge_at(key, standing, x) - standing.hedge) for x in (-BREAK_DOUBT, BREAK_DOUBT))
            yield f"acquirer's shares in doubt, break price {BREAK_DOUBT:.0%} off", doubt * held

    def _hedge_at(self, key: str, standing: Standing, shift: float) -> float:
        """The hedge ratio if the break price were another: what the least certain number does to the hedge."""
        found = self._deals[key]
        down = standing.down * (1.0 + shift)
        p = float(deals.implied_probability(standing.price, standing.offer, down))
        before = float(
            deals.hedge_ratio(
                standing.probability, 0.0, beta=found.beta, down=standing.down, acquirer=standing.acquirer
            )
        )
        clipped = min(max(standing.probability, 0.0), 1.0)
        slope = (standing.hedge - before) / clipped if clipped else 0.0
        p = 1.0 if math.isnan(p) else p
        return float(deals.hedge_ratio(p, slope, beta=found.beta, down=down, acquirer=standing.acquirer))

    def _hedging_rows(self, view: StrategyView, memory: Memory) -> Iterator[tuple[str, float | str | None]]:
        days = (view.now - memory.began) / NS_PER_DAY
        yield "hedges", float(memory.hedges)
        yield "hedges a day", memory.hedges / days if days > 0 else None
        yield "shares traded by hedges", float(memory.shares)
        for key in memory.acquirers:
            yield f"{key} held", float(view.held(key))
        yield "greatest need over displayed size", memory.over_shown or None
        for kind, amount in paid_so_far(view).items():
            yield f"account: {kind}", amount


def _entry(ts: Nanos, s: Standing) -> Entry:
    return Entry(
        ts=ts,
        price=s.price,
        offer=s.offer,
        probability=s.probability,
        annualised=_known(s.annualised),
        hedge=s.hedge,
        loss=s.loss,
    )


def _deal(given: Deal | Mapping[str, object]) -> Deal:
    return given if isinstance(given, Deal) else msgspec.convert(dict(given), Deal)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
