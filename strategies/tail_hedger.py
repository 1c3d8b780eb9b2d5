"""A tail hedger holds stock and rolls an overlay of options that pay when it crashes, bought to a carry budget.

Law: what it spends in a year stays at or under `carry_bp` of the account's worth (money not spent is kept for the next
roll); a written leg is never larger than the bought one that covers it; an option without a good quote is waited for. The
overlay is scored against the same stock alone and against plain de-risking at the same expected carry.

    put         a put at a share of the price, or at a delta
    put_spread  the same with a lower put written
    call        a call, as on a volatility index
    de_risk     no options: stock_weight less carry_bp / equity_premium of the worth, the plain alternative
    hold        no options: the stock alone
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from bot.core.events import Evidence, Target, TargetLine
from bot.core.ports import Chain, Figures, StrategyView
from bot.core.quiet import UNTIL_TIMER, QuietBox
from bot.core.sight import paid_so_far
from bot.domain.instruments import OptionContract, round_to_lot
from bot.domain.orders import QuoteRef
from bot.domain.units import NEVER, NS_PER_DAY, NS_PER_YEAR, Nanos, Rate, iso, span, years_between

Method: TypeAlias = Literal["put", "put_spread", "call", "de_risk", "hold"]
Marker: TypeAlias = Literal["multiple", "vol", "drop", "days"]
OPTIONS: Final = frozenset({"put", "put_spread", "call"})
UTC: Final = ZoneInfo("UTC")
ZERO: Final = Decimal(0)
TAIL: Final = 0.05
"""The share of months that the tail is."""
KEPT: Final = 64
"""Worst months kept: enough for the tail of a hundred years."""
SHOCKS: Final = (0.10, 0.20, 0.30)
"""Falls of the underlying at which the payoff of what is held is gauged."""


class Monetise(msgspec.Struct, frozen=True, kw_only=True):
    """When a bought structure is sold, once each: `share` of what is left of it, when `at` reaches `level`.

    `multiple`: its bid is so many times its cost; `vol`: the underlying's vol near the money; `drop`: the underlying stands
    by so large a share below where it was bought; `days`: so many days or fewer are left.
    """

    at: Marker
    level: float
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.level < math.inf:
            raise ValueError(f"monetise: level: expected a positive number, found {self.level}")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"monetise: share: expected above 0 and at most 1, found {self.share}")


class Tranche(msgspec.Struct, frozen=True, kw_only=True):
    """A structure that was bought: contracts, net cost per unit, and the underlying's price then. `fired` are the rules
    that already sold some of it."""

    long: str
    short: str | None
    quantity: Decimal
    cost: float
    spot: float
    ts: Nanos
    expiry: Nanos
    fired: tuple[int, ...] = ()


class Due(msgspec.Struct, frozen=True):
    """A purchase that is due: how far out, for how much money, and why."""

    tenor: Nanos
    money: float
    why: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A path followed: its worth, best, deepest fall as a share of the best, worth at the month's start, worst months."""

    worth: float
    start: float
    best: float
    drawdown: float = 0.0
    fell: Nanos = 0
    month: float
    worst: tuple[float, ...] = ()

    def moved(self, worth: float, now: Nanos, *, month_over: bool) -> Run:
        """The same after a look; a month that is over is counted at the worth before."""
        best = max(self.best, worth)
        fall = 1.0 - worth / best if best > 0.0 else 0.0
        worst, month = self.worst, self.month
        if month_over and month > 0.0:
            worst = tuple(sorted((*worst, self.worth / month - 1.0))[:KEPT])
            month = self.worth
        return Run(
            worth=worth,
            start=self.start,
            best=best,
            drawdown=max(self.drawdown, fall),
            fell=now if fall > self.drawdown else self.fell,
            month=month,
            worst=worst,
        )

    def cvar(self, months: int) -> float | None:
        """The mean loss of the worst twentieth of months as a share, positive for a loss; None under 20 months."""
        if months < 20:
            return None
        count = max(1, math.floor(TAIL * months))
        return -sum(self.worst[:count]) / min(count, len(self.worst)) if self.worst else None

    def growth(self, years: float) -> float | None:
        """Continuous growth per year; None where nothing is left."""
        return math.log(self.worth / self.start) / years if years > 0.0 and min(self.worth, self.start) > 0.0 else None


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """All that a restarted hedger needs: structures held, purchases due, the next roll, sums and the paths it is scored by.

    `pairs` are the bought and written contracts of every structure bought so far whose contracts still live.
    """

    began: Nanos
    ts: Nanos
    price_ts: Nanos
    price: float
    next_roll: Nanos
    stock: Decimal | None = None
    tranches: tuple[Tranche, ...] = ()
    pairs: tuple[tuple[str, str | None], ...] = ()
    due: tuple[Due, ...] = ()
    unspent: float = 0.0
    months: int = 0
    own: Run
    alone: Run
    de_risked: Run
    rolls: int = 0
    bought: int = 0
    spent: float = 0.0
    spent_share: float = 0.0
    over_mid: float = 0.0
    sold: int = 0
    sales: float = 0.0
    shown: float | None = None
    waited: int = 0


class Seen(NamedTuple):
    """A price and when it was received, or why there is none to act on."""

    value: float
    ts: Nanos
    fault: str = ""


class Choice(NamedTuple):
    """A structure that can be bought now: contracts, net price per unit at the touch and at mid, displayed size."""

    long: OptionContract
    short: OptionContract | None
    price: float
    mid: float
    shown: float


class TailHedger:
    """Stock and a rolling overlay of options. Implements `Strategy`, `Restores`, `Reports`."""

    def __init__(
        self,
        *,
        stock: str,
        method: Method = "put",
        underlying: str | None = None,
        name: str = "tail_hedger",
        book: str = "main",
        stock_weight: float | None = 1.0,
        carry_bp: float = 50.0,
        roll: Nanos = 30 * NS_PER_DAY,
        tenors: Sequence[Nanos] = (90 * NS_PER_DAY,),
        moneyness: float = 0.90,
        short_moneyness: float = 0.75,
        delta: float | None = None,
        monetise: Sequence[Monetise | Mapping[str, Any]] = (),
        reinvest: float = 0.0,
        equity_premium: float = 0.04,
        rate: Rate = 0.0,
        every: Nanos | None = None,
        stale_after: Nanos | None = None,
        max_spread: float | None = None,
    ) -> None:
        self.name = name
        self.book = book
        self.method = method
        self._stock = stock
        self._underlying = underlying if underlying is not None else stock
        self._weight = stock_weight
        self._carry = carry_bp * 1e-4
        self._roll = roll
        self._tenors = tuple(tenors)
        self._moneyness = moneyness
        self._short = short_moneyness
        self._delta = delta
        self._rules = [m if isinstance(m, Monetise) else msgspec.convert(dict(m), Monetise) for m in monetise]
        self._reinvest = reinvest
        self._premium = equity_premium
        self._rate = rate
        self._every = every
        self._stale_after = stale_after
        self._max_spread = max_spread
        self._memory: Memory | None = None
        self._refuse_nonsense()

    def _refuse_nonsense(self) -> None:
        """ValueError for a hedge that could not be one."""
        who = f"tail_hedger {self.name!r}"
        if not 0.0 <= self._carry < 1.0:
            raise ValueError(f"{who}: carry_bp: expected 0 to 10,000, found {self._carry * 1e4:g}")
        if self._roll <= 0 or not self._tenors or min(self._tenors) <= 0:
            raise ValueError(
                f"{who}: roll, tenors: expected lengths of time above 0, found {self._roll}, {self._tenors}"
            )
        if not (self._moneyness > 0.0 and self._short > 0.0):
            raise ValueError(f"{who}: moneyness: expected positive shares of the price")
        if self.method == "put_spread" and self._short >= self._moneyness:
            raise ValueError(f"{who}: short_moneyness: expected below moneyness {self._moneyness}, found {self._short}")
        if self._delta is not None and not 0.0 < abs(self._delta) < 1.0:
            raise ValueError(f"{who}: delta: expected a size between 0 and 1, found {self._delta}")
        if not 0.0 <= self._reinvest <= 1.0:
            raise ValueError(f"{who}: reinvest: expected 0 to 1, found {self._reinvest}")
        if not self._premium > 0.0:
            raise ValueError(f"{who}: equity_premium: expected a positive rate, found {self._premium}")
        if self._weight is not None and not 0.0 <= self._weight < math.inf:
            raise ValueError(f"{who}: stock_weight: expected 0 or more, found {self._weight}")

    @property
    def less_risk(self) -> float:
        """The stock's share of plain de-risking: what is expected to cost as much a year as the overlay's whole premium."""
        weight = 1.0 if self._weight is None else self._weight
        return max(weight - self._carry / self._premium, 0.0)

    # ------------------------------------------------------------------ the Strategy protocol

    def start(self, view: StrategyView) -> Sequence[Target]:
        """The stock, and the first purchases."""
        if self._every is not None:
            view.wake_at(view.now + self._every, "look")
        return self._look(view)

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """A price moved: look."""
        return self._look(view)

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """The interval has passed, or what was asked for may have been filled."""
        if name == "look" and self._every is not None:
            view.wake_at(view.now + self._every, "look")
            return self._look(view)
        return self._targets(view, self._memory)

    def stop(self, view: StrategyView) -> Sequence[Target]:
        """Nothing: stock and protection are kept, at marks."""
        return ()

    def quiet(self, view: StrategyView) -> QuietBox | None:
        """One that looks by the clock is never woken by prices."""
        return None if self._every is None else UNTIL_TIMER

    def watches(self) -> Sequence[str]:
        """The stock and the options' underlying."""
        return sorted({self._stock, self._underlying})

    def trades(self) -> Sequence[str]:
        """The stock; the options are chosen from the chain."""
        return (self._stock,)

    def unprotected(self, held: Mapping[str, float], worth: float, prices: Mapping[str, float]) -> Mapping[str, float]:
        """The stock it holds, without its options."""
        return {self._stock: held.get(self._stock, 0.0)}

    def restore(self, view: StrategyView, memory: bytes) -> None:
        """Take over what was remembered."""
        self._memory = msgspec.json.decode(memory, type=Memory | None)

    # ------------------------------------------------------------------ a look

    def _look(self, view: StrategyView) -> Sequence[Target]:
        seen = self._price(view, self._stock)
        if seen.fault:
            view.skip(self._stock, seen.fault)
            return ()
        worth = view.equity()
        if worth is None or (self._memory is None and worth <= 0):
            view.skip(self._stock, "the account is worth nothing, or a mark is missing")
            return ()
        value = float(worth)
        m = self._memory
        if m is None:
            m = self._begin(view.now, value, seen)
        elif seen.ts > m.price_ts:
            m = self._observe(m, view.now, value, seen)
        else:
            return ()  # nothing was said since: a price is acted on once
        m = _without_ended(view, m)
        spot = self._price(view, self._underlying)
        m = self._monetise(view, m, spot)
        if view.now >= m.next_roll:
            m = self._schedule(view, m, value, seen.value)
        m = self._buy_due(view, m, spot)
        self._memory = m
        self._show(view, m, spot.value)
        view.memory(self.name, m)
        targets = self._targets(view, m)
        if any(target.lines[0].instrument != self._stock for target in targets):
            view.wake_at(view.now + 1, "filled")  # one leg may wait for the other's fill
        return targets

    def _price(self, view: StrategyView, instrument: str) -> Seen:
        """The middle of a good quote, or the last print of what nobody quotes."""
        k = view.universe.index(instrument)
        market = view.market
        quoted = market.quote_ts(k)
        value, ts = (market.mid(k), quoted) if quoted != NEVER else (market.last(k), market.last_ts(k))
        if not value > 0.0:  # a withdrawn or crossed quote is NaN here
            return Seen(math.nan, NEVER, f"no two-sided price of {instrument}")
        if self._stale_after is not None and view.now - ts > self._stale_after:
            return Seen(math.nan, NEVER, f"the price of {instrument} is older than {span(self._stale_after)}")
        return Seen(value, ts)

    def _begin(self, now: Nanos, value: float, seen: Seen) -> Memory:
        path = Run(worth=value, start=value, best=value, month=value)
        return Memory(
            began=now, ts=now, price_ts=seen.ts, price=seen.value, next_roll=now, own=path, alone=path, de_risked=path
        )

    def _observe(self, m: Memory, now: Nanos, value: float, seen: Seen) -> Memory:
        """Follow the account and the two it is scored against."""
        over = _month(now) != _month(m.ts)
        move = seen.value / m.price - 1.0
        cash = math.expm1(self._rate * years_between(m.ts, now))
        weight = 1.0 if self._weight is None else self._weight
        less = self.less_risk
        return msgspec.structs.replace(
            m,
            ts=now,
            price_ts=seen.ts,
            price=seen.value,
            months=m.months + over,
            own=m.own.moved(value, now, month_over=over),
            alone=m.alone.moved(m.alone.worth * (1.0 + weight * move + (1.0 - weight) * cash), now, month_over=over),
            de_risked=m.de_risked.moved(
                m.de_risked.worth * (1.0 + less * move + (1.0 - less) * cash), now, month_over=over
            ),
        )

    # ------------------------------------------------------------------ the roll

    def _schedule(self, view: StrategyView, m: Memory, value: float, price: float) -> Memory:
        """What a roll asks for: the stock at its weight, and a purchase for each tenor from budget and what was left."""
        instrument = view.universe.get(self._stock)
        stock = m.stock
        weight = self.less_risk if self.method == "de_risk" else self._weight
        if weight is not None:
            units = weight * max(value, 0.0) / (price * float(instrument.multiplier))
            stock = round_to_lot(units, instrument.lot if instrument.lot is not None else Decimal(1))
        missed = (view.now - m.next_roll) // self._roll
        following = m.next_roll + (missed + 1) * self._roll
        due: tuple[Due, ...] = ()
        unspent = m.unspent + sum(item.money for item in m.due)
        if self.method in OPTIONS and self._carry > 0.0:
            money = self._carry * max(value, 0.0) * (self._roll / NS_PER_YEAR) + unspent
            due = tuple(Due(tenor, money / len(self._tenors), "roll") for tenor in self._tenors)
            unspent = 0.0
        return msgspec.structs.replace(m, next_roll=following, stock=stock, due=due, unspent=unspent, rolls=m.rolls + 1)

    def _buy_due(self, view: StrategyView, m: Memory, spot: Seen) -> Memory:
        """Buy what is due and can be bought; the rest is waited for."""
        if not m.due:
            return m
        if spot.fault:
            view.skip(self._underlying, spot.fault)
            return m
        chain = view.chain(self._underlying)
        waiting: list[Due] = []
        for item in m.due:
            found = self._choose(view, chain, spot.value, item)
            if isinstance(found, str):
                view.skip(self._underlying, f"{item.why}: {found}")
                waiting.append(item)
                m = msgspec.structs.replace(m, waited=m.waited + 1)
                continue
            m = self._buy(view, m, found, item, spot.value)
        return msgspec.structs.replace(m, due=tuple(waiting))

    def _buy(self, view: StrategyView, m: Memory, found: Choice, item: Due, spot: float) -> Memory:
        lot = found.long.lot if found.long.lot is not None else Decimal(1)
        per_contract = found.price * float(found.long.multiplier)
        lots = (Decimal(repr(item.money / per_contract)) / lot).to_integral_value(ROUND_FLOOR)
        quantity = lots * lot
        spent = float(quantity) * per_contract
        if not quantity:
            return msgspec.structs.replace(m, unspent=m.unspent + item.money)
        tranche = Tranche(
            long=found.long.id,
            short=None if found.short is None else found.short.id,
            quantity=quantity,
            cost=found.price,
            spot=spot,
            ts=view.now,
            expiry=found.long.expiry,
        )
        shown = None if math.isnan(found.shown) else found.shown / float(quantity)
        return msgspec.structs.replace(
            m,
            tranches=(*m.tranches, tranche),
            pairs=tuple(dict.fromkeys((*m.pairs, (tranche.long, tranche.short)))),
            unspent=m.unspent + item.money - spent,
            bought=m.bought + 1,
            spent=m.spent + spent,
            spent_share=m.spent_share + spent / m.own.worth,
            over_mid=m.over_mid + float(quantity) * (found.price - found.mid) * float(found.long.multiplier),
            shown=shown if m.shown is None else m.shown if shown is None else min(m.shown, shown),
        )

    def _choose(self, view: StrategyView, chain: Chain, spot: float, item: Due) -> Choice | str:
        """The structure nearest to what is wanted among good quotes, or why there is none."""
        side = 1.0 if self.method == "call" else -1.0
        rows = np.flatnonzero((chain.cp == side) & (chain.tau > 1.0 / 365.0))
        if not rows.size:
            return "no such option is listed"
        far = np.abs(chain.expiry[rows] - (view.now + item.tenor))
        rows = rows[chain.expiry[rows] == chain.expiry[rows[int(np.argmin(far))]]]
        good = rows[[self._is_good(view, chain, int(row)) for row in rows]]
        if not good.size:
            return f"no good quote of the expiry {iso(int(chain.expiry[rows[0]]))[:10]}"
        if self._delta is None:
            distance = np.abs(chain.strike[good] - self._moneyness * spot)
        else:
            distance = np.abs(np.abs(chain.delta[good]) - abs(self._delta))
            if np.isnan(distance).all():
                return "no delta is known"
        long = int(good[int(np.nanargmin(distance))])
        if self.method != "put_spread":
            return self._structure(view, chain, long, None)
        below = good[chain.strike[good] < chain.strike[long]]
        if not below.size:
            return "no lower strike to write"
        target = self._short * spot
        short = int(below[int(np.argmin(np.abs(chain.strike[below] - target)))])
        return self._structure(view, chain, long, short)

    def _structure(self, view: StrategyView, chain: Chain, long: int, short: int | None) -> Choice | str:
        price, mid = float(chain.ask[long]), 0.5 * float(chain.bid[long] + chain.ask[long])
        shown = float(chain.ask_size[long])
        if short is not None:
            price -= float(chain.bid[short])
            mid -= 0.5 * float(chain.bid[short] + chain.ask[short])
            shown = min(shown, float(chain.bid_size[short]))
        if price <= 0.0:
            return "the spread costs nothing: its quotes cannot be right"
        ids = [None if row is None else view.universe.get(chain.ids[row]) for row in (long, short)]
        first, second = ids
        assert isinstance(first, OptionContract)
        return Choice(first, second if isinstance(second, OptionContract) else None, price, mid, shown)

    def _is_good(self, view: StrategyView, chain: Chain, row: int) -> bool:
        """Two sides, not crossed, worth something, fresh and no wider than is allowed."""
        bid, ask = float(chain.bid[row]), float(chain.ask[row])
        if not (0.0 < bid <= ask):
            return False
        if self._stale_after is not None and view.now - int(chain.quote_ts[row]) > self._stale_after:
            return False
        return self._max_spread is None or ask - bid <= self._max_spread * 0.5 * (bid + ask)

    # ------------------------------------------------------------------ monetisation

    def _monetise(self, view: StrategyView, m: Memory, spot: Seen) -> Memory:
        """Sell what a rule says is worth more sold than held; the money may buy new strikes at once."""
        if not self._rules or not m.tranches:
            return m
        vol = self._vol(view, spot) if any(rule.at == "vol" for rule in self._rules) else math.nan
        kept: list[Tranche] = []
        due = list(m.due)
        sold, sales = m.sold, m.sales
        for tranche in m.tranches:
            worth = self._bid_of(view, tranche)
            left = tranche
            for number, rule in enumerate(self._rules):
                if number in left.fired or not self._reached(rule, tranche, worth, spot, vol, view.now):
                    continue
                if math.isnan(worth):
                    view.skip(self._underlying, f"no bid for {tranche.long}, which is to be sold")
                    continue
                contract = view.universe.get(tranche.long)
                part = self._part(left.quantity, rule.share, contract.lot)
                if not part:
                    continue
                money = float(part) * worth * float(contract.multiplier)
                sold, sales = sold + 1, sales + money
                if self._reinvest > 0.0 and money > 0.0:
                    due.append(Due(tranche.expiry - tranche.ts, self._reinvest * money, "re-strike"))
                left = msgspec.structs.replace(left, quantity=left.quantity - part, fired=(*left.fired, number))
            if left.quantity:
                kept.append(left)
        return msgspec.structs.replace(m, tranches=tuple(kept), due=tuple(due), sold=sold, sales=sales)

    def _part(self, quantity: Decimal, share: float, lot: Decimal | None) -> Decimal:
        """A share of a quantity in whole lots, rounded up so that a small holding is sold too."""
        step = lot if lot is not None else Decimal(1)
        lots = (quantity * Decimal(repr(share)) / step).to_integral_value("ROUND_CEILING")
        return min(lots * step, quantity)

    def _reached(self, rule: Monetise, t: Tranche, worth: float, spot: Seen, vol: float, now: Nanos) -> bool:
        if rule.at == "multiple":
            return worth >= rule.level * t.cost
        if rule.at == "vol":
            return vol >= rule.level
        if rule.at == "drop":
            return spot.value <= (1.0 - rule.level) * t.spot
        return t.expiry - now <= rule.level * NS_PER_DAY

    def _bid_of(self, view: StrategyView, tranche: Tranche) -> float:
        """What a unit of a structure would be sold at: its bid, less the ask of what was written; NaN without quotes."""
        worth = self._touch(view, tranche.long, sell=True)
        return worth if tranche.short is None else worth - self._touch(view, tranche.short, sell=False)

    def _touch(self, view: StrategyView, instrument: str, *, sell: bool) -> float:
        """The touch that an order would meet, NaN where the quote is not good."""
        k = view.universe.index(instrument)
        bid, ask = view.market.bid(k), view.market.ask(k)
        age = view.now - view.market.quote_ts(k)
        if (self._stale_after is not None and age > self._stale_after) or not bid <= ask:
            return math.nan
        return bid if sell else ask

    def _vol(self, view: StrategyView, spot: Seen) -> float:
        """The vol of the contract nearest the money of the nearest expiry a week or more away; NaN when unknown."""
        chain = view.chain(self._underlying)
        rows = np.flatnonzero(np.isfinite(chain.vol) & (chain.tau > 7.0 / 365.0))
        if not rows.size or spot.fault:
            return math.nan
        rows = rows[chain.expiry[rows] == chain.expiry[rows].min()]
        return float(chain.vol[rows[int(np.argmin(np.abs(chain.strike[rows] - spot.value)))]])

    # ------------------------------------------------------------------ targets

    def _targets(self, view: StrategyView, m: Memory | None) -> list[Target]:
        """What differs from what is held or on its way, each with its reason."""
        if m is None:
            return []
        targets: list[Target] = []
        if m.stock is not None and float(m.stock) != view.exposure(self._stock):
            why = f"{self.method}: the stock at its weight of the worth at roll {m.rolls}"
            targets += self._target(view, self._stock, m.stock, why)
        for key, wanted in sorted(self._wanted(view, m).items()):
            if float(wanted) != view.exposure(key):
                targets += self._target(view, key, wanted, self._why(m, key, wanted, view))
        return targets

    def _wanted(self, view: StrategyView, m: Memory) -> dict[str, Decimal]:
        """Contracts to hold beside what the owner brought: nothing is written before its cover is held, and no cover is sold
        before what it covers was bought back."""
        longs: dict[str, Decimal] = {}
        shorts: dict[str, Decimal] = {}
        for t in m.tranches:
            longs[t.long] = longs.get(t.long, ZERO) + t.quantity
            if t.short is not None:
                shorts[t.short] = shorts.get(t.short, ZERO) + t.quantity
        covers: dict[str, set[str]] = {}
        covered: dict[str, set[str]] = {}
        for long, short in m.pairs:
            if short is not None:
                covers.setdefault(short, set()).add(long)
                covered.setdefault(long, set()).add(short)
        found: dict[str, Decimal] = {}
        for long, _ in m.pairs:
            written = sum((max(-self._own(view, key), ZERO) for key in covered.get(long, ())), ZERO)
            found[long] = view.opened(long) + max(longs.get(long, ZERO), min(written, self._own(view, long)))
        for short, behind in covers.items():
            held = sum((max(self._own(view, key), ZERO) for key in behind), ZERO)
            found[short] = found.get(short, view.opened(short)) - min(shorts.get(short, ZERO), held)
        return found

    def _own(self, view: StrategyView, instrument: str) -> Decimal:
        """What is held beyond what the owner brought."""
        return view.held(instrument) - view.opened(instrument)

    def _why(self, m: Memory, key: str, wanted: Decimal, view: StrategyView) -> str:
        for t in m.tranches:
            if key == t.long and t.ts == view.now:
                return (
                    f"{self.method}: buy at {t.cost:.4f} a unit, expiry {iso(t.expiry)[:10]}, within the carry budget"
                )
            if key == t.short:
                return f"{self.method}: write against {t.long.strip()}"
        if float(wanted) < view.exposure(key):
            return f"{self.method}: sell, a monetisation rule was reached"
        return f"{self.method}: hold {wanted}"

    def _target(self, view: StrategyView, instrument: str, quantity: Decimal, why: str) -> list[Target]:
        """The target, unless its instrument has no good quote or no session now."""
        item = view.universe.get(instrument)
        if isinstance(item, OptionContract):
            buy = float(quantity) > view.exposure(instrument)
            if math.isnan(self._touch(view, instrument, sell=not buy)):
                view.skip(self._underlying, f"no good quote of {instrument.strip()}")
                return []
        elif self._price(view, instrument).fault:
            return []
        if not view.is_open(instrument):
            view.skip(self._underlying, f"the session of {instrument.strip()} is closed")
            return []
        k = view.universe.index(instrument)
        bid, ask, ts = view.market.bid(k), view.market.ask(k), view.market.quote_ts(k)
        quote = None if ts == NEVER else QuoteRef(_known(bid), _known(ask), ts)
        evidence = Evidence(
            underlying=self._underlying,
            quote=quote,
            held=view.held(instrument),
            working=view.working(instrument),
            policy=self.method,
        )
        line = TargetLine(instrument, quantity, float(quantity))
        return [Target(book=self.book, lines=(line,), reason=why, evidence=evidence)]

    # ------------------------------------------------------------------ what is shown

    def _show(self, view: StrategyView, m: Memory, spot: float) -> None:
        held = [(view.universe.get(key), float(view.held(key))) for key in self._held_ids(m)]
        view.gauge("worth", m.own.worth)
        view.gauge("stock alone", m.alone.worth)
        view.gauge("de-risked", m.de_risked.worth)
        view.gauge("premium spent", m.spent)
        view.gauge("sales", m.sales)
        if m.own.worth <= 0.0 or self.method not in OPTIONS:
            return
        for shock in SHOCKS:
            paid = sum(
                q * float(c.multiplier) * max(c.cp * (spot * (1.0 - c.cp * -shock) - float(c.strike)), 0.0)
                for c, q in held
                if isinstance(c, OptionContract)
            )
            view.gauge(f"pays at {'+' if self.method == 'call' else '-'}{shock:.0%}", paid / m.own.worth)

    def _held_ids(self, m: Memory) -> list[str]:
        return sorted({t.long for t in m.tranches} | {t.short for t in m.tranches if t.short is not None})

    def figures(self, view: StrategyView) -> Figures:
        """Outcome, tail, score for each basis point of carry, overlay and trading, each a table."""
        m = self._memory
        if m is None:
            return {}
        worth, seen = view.equity(), self._price(view, self._stock)
        if worth is not None and not seen.fault and seen.ts > m.price_ts:
            m = self._observe(m, view.now, float(worth), seen)  # the run went on after the last look
        years = years_between(m.began, m.ts)
        own, alone, less = m.own, m.alone, m.de_risked
        paid = paid_so_far(view)
        tables: dict[str, dict[str, float | str | None]] = {
            "Outcome": {
                "worth at the start": own.start,
                "worth at the end": own.worth,
                "stock alone": alone.worth,
                "de-risked": less.worth,
                "growth a year": own.growth(years),
                "growth a year, stock alone": alone.growth(years),
                "growth a year, de-risked": less.growth(years),
            },
            "Tail": {
                "worst months' mean loss": own.cvar(m.months),
                "worst months' mean loss, stock alone": alone.cvar(m.months),
                "worst months' mean loss, de-risked": less.cvar(m.months),
                "largest drawdown": own.drawdown,
                "largest drawdown at": iso(own.fell)[:10] if own.fell else None,
                "largest drawdown, stock alone": alone.drawdown,
                "largest drawdown, de-risked": less.drawdown,
                "months": float(m.months),
            },
            "Saved by the overlay": _saved(own, alone, m.months, years),
            "Saved by de-risking": _saved(less, alone, m.months, years),
        }
        if self.method in OPTIONS:
            tables["Overlay"] = _overlay(m, years)
        tables["Trading"] = {
            "rolls": float(m.rolls),
            "least displayed size over need": m.shown,
            "purchases waited for": float(m.waited),
            **{name: paid[name] for name in ("spread", "commission", "impact", "delay", "interest") if name in paid},
        }
        return tables


def _without_ended(view: StrategyView, m: Memory) -> Memory:
    """The same without structures and contracts that have expired."""

    def lives(key: str) -> bool:
        contract = view.universe.get(key)
        return isinstance(contract, OptionContract) and contract.expiry > view.now

    return msgspec.structs.replace(
        m,
        tranches=tuple(t for t in m.tranches if t.expiry > view.now),
        pairs=tuple(pair for pair in m.pairs if lives(pair[0])),
    )


def _saved(path: Run, alone: Run, months: int, years: float) -> dict[str, float | str | None]:
    """What a path saved against the stock alone, for each basis point of growth a year it cost; None where it cost none."""
    mine, bare = path.growth(years), alone.growth(years)
    carry = None if mine is None or bare is None else 1e4 * (bare - mine)
    ours, theirs = path.cvar(months), alone.cvar(months)
    tail = None if ours is None or theirs is None else theirs - ours
    fall = alone.drawdown - path.drawdown
    cost = carry if carry is not None and carry > 0.0 else None
    return {
        "carry, bp a year": carry,
        "worst months' mean loss saved": tail,
        "drawdown saved": fall,
        "worst months' mean loss saved for each bp": None if cost is None or tail is None else tail / cost,
        "drawdown saved for each bp": None if cost is None else fall / cost,
    }


def _overlay(m: Memory, years: float) -> dict[str, float | str | None]:
    return {
        "structures bought": float(m.bought),
        "premium spent": m.spent,
        "premium over mid": m.over_mid,
        "premium over mid, share": m.over_mid / m.spent if m.spent > 0.0 else None,
        "sales by rule": float(m.sold),
        "money of those sales": m.sales,
        "premium, bp a year of the worth": 1e4 * m.spent_share / years if years > 0.0 else None,
        "budget not yet spent": m.unspent + sum(item.money for item in m.due),
    }


def _month(ts: Nanos) -> tuple[int, int]:
    day = datetime.fromtimestamp(ts / 1e9, UTC)
    return day.year, day.month


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
