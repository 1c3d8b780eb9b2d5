"""Convertible arbitrage holds convertible bonds against their shares: long the bond, short its delta, and if asked its credit.

Law: it acts only through targets. A bond it cannot value or a quote it cannot trust is a decision not made, with the reason
on the record; what the issuer or the lenders of the shares say changes the position at once.

    shares wanted = -hedge_ratio sum over bonds (delta x bonds held), never more short than can be borrowed
    delta         = dV/dS of the bond by its own model: Ayache, Forsyth and Vetzal 2003 or Tsiveriotis and Fernandes 1998

The value V(S) is a grid kept for a day and market, read on each tick; its vol or credit is the bond's own, or implied from
the bond's quote at each re-mark. Prices are per cent of face, dirty.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np

from bot.core.errors import DataError
from bot.core.events import Alarm, Corporate, Notice, Target, TargetLine
from bot.core.notices import ConvertibleNotice, read_notice
from bot.core.ports import Band, Figures, StrategyView
from bot.core.quiet import QuietBox
from bot.core.sight import Sight, evidence, needed_over_shown, paid_so_far, sight
from bot.domain.convertible import SAME_INSTANT, ConvertibleModel, ConvertibleTerms
from bot.domain.instruments import ConvertibleBond, Instrument, round_to_lot
from bot.domain.units import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_MINUTE, Nanos, Rate, iso
from bot.pricing.convertible import Accuracy
from bot.pricing.convertible_shelf import BondValue, By, Shelf, called, credit_delta, implied
from strategies.policies.decide import decide

ZERO, ONE = Decimal(0), Decimal(1)
HOUR: Final = 60 * NS_PER_MINUTE
PUT_TIE: Final = 1e-4
"""A bond worth its put to this many hundredths of face is put."""
Calibration: TypeAlias = Literal["none", "vol", "spread"]


class Holding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One bond and how many of it: `quantity` None holds what the book has.

    `entry` buys only while the ask is at least this share below the model's value, `exit` sells once the bid is this share
    above it; None: at once, never.
    """

    bond: str
    quantity: float | None = None
    entry: float | None = None
    exit: float | None = None

    def __post_init__(self) -> None:
        if self.quantity is not None and not 0.0 <= self.quantity < math.inf:
            raise ValueError(f"{self.bond}: quantity: expected bonds to hold, 0 or more, found {self.quantity}")
        for name in ("entry", "exit"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{self.bond}: {name}: expected a share of the value, found {value}")
        if self.entry is not None and self.quantity is None:
            raise ValueError(f"{self.bond}: entry: expected a quantity to buy beside it, found none")


class BondMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one bond. `wanted` None: what is held; `vol` and `credit` replace its model's numbers.

    `asked` is the last count the venue was asked for, `elected` what the agent was last told to do, `gone` what became of it.
    """

    opened: Decimal
    wanted: Decimal | None = None
    why: str = ""
    asked: Decimal | None = None
    vol: float | None = None
    credit: float | None = None
    called_at: Nanos | None = None
    call_price: float = 0.0
    elected: Literal["", "conversion", "put"] = ""
    elected_at: Nanos = 0
    gone: str = ""
    credit_delta: float | None = None
    coupons: Decimal = ZERO
    uncalibrated: int = 0


class StockMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one share: how many may be short (None: any number), at what rate, what was owned.

    `hedging` once there was a bond on it: before, what the book holds of it is not touched.
    """

    opened: Decimal
    borrowable: Decimal | None = None
    rate: Rate | None = None
    told: str = ""
    hedging: bool = False


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """All a restarted strategy needs, and the counts of its report."""

    began: Nanos
    bonds: dict[str, BondMemory]
    stocks: dict[str, StockMemory]
    credit_opened: Decimal = ZERO
    hedges: int = 0
    shares: Decimal = ZERO
    over_shown: float = 0.0


class _Reading(NamedTuple):
    """One bond at this instant: what it is worth, how many there will be, and whether they are traded now."""

    bond: ConvertibleBond
    value: BondValue
    bonds: Decimal


class ConvertibleArbitrage:
    """Any number of bonds of one book against their shares. Implements `Strategy`, `HearsNotices`, `HearsCorporate`,
    `Restores`, `Follows`, `Reports`."""

    def __init__(
        self,
        *,
        positions: Sequence[Holding | Mapping[str, object]],
        half_width: float,
        name: str = "convertible_arbitrage",
        book: str = "main",
        to: Literal["edge", "centre"] = "centre",
        hedge_ratio: float = 1.0,
        calibrate: Calibration = "none",
        remark: Nanos = HOUR,
        max_short: float | None = None,
        max_borrow_rate: Rate | None = None,
        on_call: Literal["hold", "sell"] = "hold",
        on_recall: Literal["reduce", "accept"] = "reduce",
        convert: bool = True,
        stale_after: Nanos | None = None,
        credit_hedge: str | None = None,
        credit_per_contract: float | None = None,
        credit_half_width: float = 0.0,
        accuracy: Accuracy = "default",
    ) -> None:
        self.name, self.book = name, book
        self._holdings = {held.bond: held for held in map(_holding, positions)}
        self._half_width, self._to, self._ratio = half_width, to, hedge_ratio
        self._calibrate: Calibration = calibrate
        self._remark = remark
        self._max_short, self._max_rate = max_short, max_borrow_rate
        self._on_call, self._on_recall, self._convert = on_call, on_recall, convert
        self._stale_after = stale_after
        self._credit, self._credit_per, self._credit_width = credit_hedge, credit_per_contract, credit_half_width
        self._shelf = Shelf(accuracy=accuracy)
        self._memory: Memory | None = None
        self._refuse_nonsense(len(positions))

    def _refuse_nonsense(self, given: int) -> None:
        """ValueError for a table that means nothing."""
        who = f"convertible_arbitrage {self.name!r}"
        if not self._holdings or len(self._holdings) < given:
            found = "none" if not self._holdings else "one twice"
            raise ValueError(f"{who}: positions: expected at least one, each bond once, found {found}")
        bounds = {"half_width": self._half_width, "hedge_ratio": self._ratio, "credit_half_width": self._credit_width}
        for name, value in {**bounds, "max_short": self._max_short or 0.0}.items():
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{who}: {name}: expected a number >= 0, found {value}")
        if self._remark <= 0:
            raise ValueError(f"{who}: remark: expected a length of time, found {self._remark}")
        priced = [held.bond for held in self._holdings.values() if held.entry is not None or held.exit is not None]
        if priced and self._calibrate != "none":
            raise ValueError(
                f"{who}: calibrate: expected 'none' beside an entry or exit of {priced[0]}: a model that is fitted to "
                f"the quote finds nothing cheap, found {self._calibrate!r}"
            )
        per = self._credit_per
        if (self._credit is None) != (per is None) or (per is not None and not (math.isfinite(per) and per != 0.0)):
            raise ValueError(
                f"{who}: credit_per_contract: expected with credit_hedge and only with it, what one contract gains per "
                f"1.00 of spread, found {per}"
            )

    # ------------------------------------------------------------------ the Strategy protocol

    def start(self, view: StrategyView) -> Sequence[Target]:
        """The opening position: bonds to be bought at once, and their hedge."""
        bonds = {key: self._bond(view, key) for key in self._holdings}
        stocks = sorted({bond.underlying for bond in bonds.values()})
        self._memory = Memory(
            began=view.now,
            bonds={key: self._first_memory(view, bond) for key, bond in bonds.items()},
            stocks={key: StockMemory(opened=view.held(key), borrowable=self._own_cap()) for key in stocks},
            credit_opened=ZERO if self._credit is None else view.held(self._credit),
        )
        for bond in bonds.values():
            for put in bond.terms.puts:
                if (ts := bond.instant(put.start)) > view.now:
                    view.wake_at(ts, "put")
        view.wake_at(view.now + self._remark, "remark")
        return self._look_anew(view)

    def _first_memory(self, view: StrategyView, bond: ConvertibleBond) -> BondMemory:
        held, owned = self._holdings[bond.id], view.held(bond.id)
        if held.quantity is None or held.entry is not None:
            return BondMemory(opened=owned)
        wanted = round_to_lot(held.quantity, bond.lot or ONE, toward_zero=True)
        return BondMemory(opened=owned, wanted=wanted, why=f"to hold {wanted}")

    def _own_cap(self) -> Decimal | None:
        return None if self._max_short is None else Decimal(repr(self._max_short))

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """A quote moved: hedge what left its band."""
        return self._decide(view)

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """A re-mark: models are fitted anew. Or an instant at which a put or a redemption may be had."""
        if name != "remark":
            return self._decide(view)
        view.wake_at(view.now + self._remark, "remark")
        return self._look_anew(view)

    def stop(self, view: StrategyView) -> Sequence[Target]:
        """What was traded is undone: bonds and shares go back to what was owned; a bond that ended takes its hedge along."""
        memory = self._memory
        if memory is None:
            return ()
        wanted = {key: own.opened for key, own in memory.bonds.items() if not self._ended(view, key)}
        ended = {self._bond(view, key).underlying for key in memory.bonds if self._ended(view, key)}
        wanted |= {key: ZERO if key in ended else own.opened for key, own in memory.stocks.items() if own.hedging}
        if self._credit is not None:
            wanted[self._credit] = memory.credit_opened
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
        """Bonds, and shares and credit hedge once they are known."""
        return sorted({*self._holdings, *self.trades()})

    def trades(self) -> Sequence[str]:
        """Bonds, their shares, the credit hedge."""
        stocks = self._memory.stocks if self._memory is not None else {}
        return sorted({*self._holdings, *stocks, *([] if self._credit is None else [self._credit])})

    def unprotected(self, held: Mapping[str, float], worth: float, prices: Mapping[str, float]) -> Mapping[str, float]:
        """The bonds it holds, without the shares and the credit hedge."""
        return {key: quantity for key, quantity in held.items() if key in self._holdings}

    def restore(self, view: StrategyView, memory: bytes) -> None:
        """Go on from memory."""
        self._memory = msgspec.json.decode(memory, type=Memory | None)

    def follow(self, view: StrategyView, renamed: Mapping[str, str]) -> None:
        """Go on under new ids."""
        self._holdings = {
            (new := renamed.get(key, key)): msgspec.structs.replace(held, bond=new)
            for key, held in self._holdings.items()
        }
        self._credit = None if self._credit is None else renamed.get(self._credit, self._credit)
        if self._memory is not None:
            self._memory = msgspec.structs.replace(
                self._memory,
                bonds={renamed.get(k, k): v for k, v in self._memory.bonds.items()},
                stocks={renamed.get(k, k): v for k, v in self._memory.stocks.items()},
            )
            self._keep(view)

    # ------------------------------------------------------------------ words from outside

    def notice(self, view: StrategyView, notice: Notice) -> Sequence[Target]:
        """Calls, recalls, borrow and credit of its own bonds; a notice that cannot be read is an alarm and changes nothing."""
        try:
            found = read_notice(notice)
        except DataError as fault:
            view.alarm(Alarm(code="bad_notice", text=str(fault), ts=view.now))
            return ()
        memory = self._memory
        if memory is None or not isinstance(found, ConvertibleNotice):
            return ()
        bonds = [key for key in memory.bonds if found.instrument in {key, self._bond(view, key).underlying}]
        for key in bonds:
            self._hear(view, key, found)
        return self._look_anew(view) if bonds else ()

    def _hear(self, view: StrategyView, key: str, found: ConvertibleNotice) -> None:
        bond = self._bond(view, key)
        match found.what:
            case "call" if found.instrument == key and found.effective is not None and found.price is not None:
                if found.effective > bond.matures:
                    text = f"{key}: a call for {iso(found.effective)}, after maturity, means nothing"
                    view.alarm(Alarm(code="bad_notice", text=text, ts=view.now))
                    return
                self._note(key, called_at=found.effective, call_price=found.price)
                if self._on_call == "sell":
                    self._wish(key, ZERO, f"called at {found.price:g} for {iso(found.effective)}: sold")
                elif found.effective > view.now:
                    view.wake_at(found.effective, "called")
            case "recall" | "borrow":
                told = [cap for cap in (found.shares, self._own_cap()) if cap is not None]
                changes: dict[str, object] = {"borrowable": min(told, default=None)}
                changes |= {} if found.rate is None else {"rate": found.rate}
                self._note_stock(bond.underlying, **changes)
                rate = self._stock_of(bond).rate
                if rate is not None and self._max_rate is not None and rate > self._max_rate:
                    self._wish(key, ZERO, f"borrowing {bond.underlying} costs {rate:.2%}, bound {self._max_rate:.2%}")
            case "credit" if found.instrument == key:
                self._note(key, credit=found.credit)
            case "default" if found.instrument == key:
                self._note(key, gone="defaulted")
            case _:
                return

    def corporate(self, view: StrategyView, event: Corporate) -> Sequence[Target]:
        """A coupon is counted; a bond that was redeemed or converted is gone, and what hedged it goes with it."""
        memory = self._memory
        own = None if memory is None else memory.bonds.get(event.instrument)
        if own is not None and event.what == "coupon":
            paid = view.held(event.instrument) * view.universe.get(event.instrument).multiplier * event.cash
            self._note(event.instrument, coupons=own.coupons + paid)
            self._keep(view)
        elif own is not None and event.what in {"redemption", "conversion"}:
            self._note(event.instrument, gone=event.what, why=event.text)
            self._keep(view)
        return self._decide(view)

    # ------------------------------------------------------------------ re-marks

    def _look_anew(self, view: StrategyView) -> Sequence[Target]:
        """Fit the models to the quotes, take the credit deltas, and decide."""
        for key in self._holdings:
            bond = self._bond(view, key)
            own = self._own(key)
            seen = sight(view, bond.underlying, stale_after=self._stale_after)
            model = self._model(bond)
            if own.gone or model is None or seen.fault:
                continue
            if self._calibrate != "none" and own.called_at is None:  # a called bond's quote says little of its vol
                self._fit(view, bond, seen.price, self._calibrate)
            if self._credit is not None:
                at = self._shelf.anchor(self._terms(bond), bond.years(view.now))
                found = credit_delta(
                    self._terms(bond), self._model(bond) or model, spot=seen.price, at=at, accuracy=self._shelf.accuracy
                )
                self._note(key, credit_delta=found if math.isfinite(found) else None)
        targets = self._decide(view)
        self._keep(view)
        return targets

    def _fit(self, view: StrategyView, bond: ConvertibleBond, spot: float, by: By) -> None:
        """Take the vol or credit at which the model gives the bond's middle; where there is none the last stays."""
        seen = sight(view, bond.id, stale_after=self._stale_after)
        own, model = self._own(bond.id), self._model(bond)
        if seen.fault or model is None:
            return
        found = implied(
            self._terms(bond),
            model,
            spot=spot,
            price=seen.price * float(bond.multiplier),
            at=bond.years(view.now),
            by=by,
            accuracy=self._shelf.accuracy,
            near=own.vol if by == "vol" else own.credit,
        )
        if math.isnan(found):
            self._note(bond.id, uncalibrated=own.uncalibrated + 1)
        else:
            self._note(bond.id, **({"vol": found} if by == "vol" else {"credit": found}))

    # ------------------------------------------------------------------ one decision

    def _decide(self, view: StrategyView) -> list[Target]:
        before = self._memory
        if before is None:
            return []
        targets: list[Target] = []
        for stock in before.stocks:
            targets += self._decide_on(view, stock)
        if self._credit is not None:
            targets += self._hedge_credit(view)
        if self._memory is not before:
            self._keep(view)
        return targets

    def _decide_on(self, view: StrategyView, stock: str) -> list[Target]:
        """The bonds on one share, and the share."""
        keys = [key for key in self._holdings if self._bond(view, key).underlying == stock]
        for key in keys:
            self._note_election(view, key)
        seen = sight(view, stock, stale_after=self._stale_after)
        if seen.fault:
            if any(self._at_stake(view, key) for key in (*keys, stock)):
                view.skip(stock, seen.fault)
            return []
        readings = self._read(view, stock, keys, seen.price)
        if readings is None:
            return []
        elected = {r.bond.id: t for r in readings if (t := self._elect(view, r)) is not None}
        if elected:
            self._note_stock(stock, hedging=True)  # the shares that are delivered are its own to sell
        readings = [r._replace(bonds=ZERO) if r.bond.id in elected else r for r in readings]
        readings = self._within_borrow(view, stock, readings)
        targets, there = list(elected.values()), []
        for reading in readings:
            if reading.bond.id in elected:
                there.append(reading)
                continue
            target, bonds = self._trade_bond(view, reading)
            targets += [] if target is None else [target]
            there.append(reading._replace(bonds=bonds))
        hedge = self._hedge(view, stock, seen, there)
        return targets if hedge is None else [*targets, hedge]

    def _read(self, view: StrategyView, stock: str, keys: Sequence[str], spot: float) -> list[_Reading] | None:
        """Each bond valued and judged; None, said on the record, when one at stake cannot be."""
        readings: list[_Reading] = []
        for key in keys:
            bond, own = self._bond(view, key), self._own(key)
            late = own.called_at is not None and own.called_at < view.now and not own.gone
            value = self._value(view, bond, spot)
            if late or not math.isfinite(value.delta):
                if not self._at_stake(view, key):
                    continue
                unpaid = f"{key} was called for {iso(own.called_at or 0)} and nothing was paid yet"
                view.skip(stock, unpaid if late else f"no model value of {key} at {spot:g}")
                return None
            self._judge(view, bond, value)
            readings.append(_Reading(bond, value, self._count(view, key)))
        return readings

    def _note_election(self, view: StrategyView, key: str) -> None:
        """What was elected and is held no more is gone."""
        own = self._own(key)
        if own.elected and not own.gone and not view.held(key):
            self._note(key, gone=own.elected)

    def _at_stake(self, view: StrategyView, key: str) -> bool:
        """True when something is held, working or wanted."""
        own = self._memory.bonds.get(key) if self._memory is not None else None
        wanted = own is not None and bool(own.wanted) and not own.gone
        return wanted or bool(self._exposure(view, key))

    def _elect(self, view: StrategyView, reading: _Reading) -> Target | None:
        """Put what is worth no more than its put, convert what is worth no more than its shares; not what is bid higher."""
        bond, value, _ = reading
        own = self._own(bond.id)
        waits = bool(own.elected) and view.now < own.elected_at + self._remark
        if view.held(bond.id) <= 0 or own.gone or waits or view.working(bond.id):
            return None
        bid = view.market.bid(view.universe.index(bond.id))
        via: Literal["conversion", "put"] = "put"
        word = self._why_put(view, bond, value, bid)
        if not word:
            via, word = "conversion", self._why_converted(view, bond, value, bid)
        if not word:
            return None
        self._note(bond.id, elected=via, elected_at=view.now, why=word)
        return Target(book=self.book, lines=(TargetLine(bond.id, ZERO, 0.0),), reason=f"{self.name}: {word}", via=via)

    def _why_put(self, view: StrategyView, bond: ConvertibleBond, value: BondValue, bid: float) -> str:
        terms, at = self._terms(bond), bond.years(view.now)
        for put in terms.puts:
            if put.start - SAME_INSTANT <= at <= put.end + SAME_INSTANT:
                price = bond.points(put.price + (terms.accrued(at) if put.clean else 0.0))
                if float(value.price) <= price + PUT_TIE and not bid > price:
                    return f"put at {price:.4f}: worth {float(value.price):.4f} held"
        return ""

    def _why_converted(self, view: StrategyView, bond: ConvertibleBond, value: BondValue, bid: float) -> str:
        """Where it is best to convert, the grid's theta is zero exactly and the value that of the shares."""
        terms, at = self._terms(bond), bond.years(view.now)
        begin, finish = terms.conversion_window
        opened = begin - SAME_INSTANT <= at <= min(finish, terms.maturity - SAME_INSTANT) and terms.ratio_at(at) > 0.0
        parity = float(value.parity)
        best = float(value.theta) == 0.0 and float(value.price) <= parity and not bid > parity
        return f"worth its shares, {parity:.4f}, and no more: converted" if self._convert and opened and best else ""

    def _judge(self, view: StrategyView, bond: ConvertibleBond, value: BondValue) -> None:
        """Enter what is cheap enough and leave what is dear enough, by the quote's own side."""
        held, own = self._holdings[bond.id], self._own(bond.id)
        if own.gone or (held.entry is None and held.exit is None):
            return
        seen = sight(view, bond.id, stale_after=self._stale_after)
        worth = float(value.price)
        if seen.fault or not worth > 0.0:
            return
        exposure = self._exposure(view, bond.id)
        cheap, dear = 1.0 - seen.ask / worth, seen.bid / worth - 1.0
        if held.exit is not None and exposure > 0 and own.wanted != ZERO and dear >= held.exit:
            self._wish(bond.id, ZERO, f"bid {seen.bid:g} is {dear:.2%} above {worth:.4f}, exit {held.exit:.2%}")
        elif held.entry is not None and own.wanted is None and not exposure and cheap >= held.entry:
            quantity = round_to_lot(held.quantity or 0.0, bond.lot or ONE, toward_zero=True)
            self._wish(bond.id, quantity, f"ask {seen.ask:g} is {cheap:.2%} below {worth:.4f}, entry {held.entry:.2%}")

    def _within_borrow(self, view: StrategyView, stock: str, readings: Sequence[_Reading]) -> list[_Reading]:
        """The bonds, fewer of them where hedging all takes more shares than can be borrowed."""
        own = self._memory_of(stock)
        short = self._ratio * sum(float(r.value.delta) * float(r.bonds) for r in readings)
        if own.borrowable is None or short - self._half_width <= float(own.borrowable):
            return list(readings)
        text = f"{short:.0f} shares of {stock} are to be short and {own.borrowable} can be borrowed"
        if self._on_recall == "accept":
            if own.told != str(own.borrowable):
                self._note_stock(stock, told=str(own.borrowable))
                alarm = Alarm(code="not_borrowed", text=text, ts=view.now, underlying=stock, action="hedging less")
                view.alarm(alarm)
            return list(readings)
        share = float(own.borrowable) / short
        kept: list[_Reading] = []
        for reading in readings:
            bonds = reading.bonds
            if bonds > 0 and float(reading.value.delta) > 0.0:
                bonds = round_to_lot(float(bonds) * share, reading.bond.lot or ONE, toward_zero=True)
                self._wish(reading.bond.id, bonds, f"{text}: fewer bonds")
            kept.append(reading._replace(bonds=bonds))
        return kept

    def _trade_bond(self, view: StrategyView, reading: _Reading) -> tuple[Target | None, Decimal]:
        """The target of a bond whose number is not what is wanted, and the number to hedge.

        That is the wanted one where the venue is asked for it the first time, so that both legs leave together; after that
        what is there, so that a bond nobody sells is not hedged.
        """
        key = reading.bond.id
        own, there = self._own(key), self._exposure(view, key)
        if reading.bonds == there or own.gone:
            return None, there
        seen = sight(view, key, stale_after=self._stale_after)
        if seen.fault:
            view.skip(key, seen.fault)
            return None, there
        first = own.asked != reading.bonds
        if first:
            self._note(key, asked=reading.bonds)
        self._count_need(seen, reading.bonds - there)
        delta = float(reading.value.delta)
        found = evidence(view, key, underlying=reading.bond.underlying, policy=self.name, delta=delta)
        line = TargetLine(key, reading.bonds, float(reading.bonds))
        target = Target(book=self.book, lines=(line,), reason=f"{self.name}: {own.why}", evidence=found)
        return target, reading.bonds if first else there

    def _hedge(self, view: StrategyView, stock: str, seen: Sight, readings: Sequence[_Reading]) -> Target | None:
        """The target of the share, where what is held left its band; without bonds the band is nothing wide."""
        share = view.universe.get(stock)
        multiplier = float(share.multiplier)
        own, bonds = self._memory_of(stock), any(r.bonds for r in readings)
        if bonds and not own.hedging:
            self._note_stock(stock, hedging=True)
        elif not own.hedging:
            return None
        delta = sum(float(r.value.delta) * float(r.bonds) for r in readings)
        gamma = sum(float(r.value.gamma) * float(r.bonds) for r in readings)
        want = -self._ratio * delta / multiplier
        cap = own.borrowable
        if cap is not None:
            want = max(want, -float(cap) / multiplier)
        width = self._half_width / multiplier if delta else 0.0
        held = view.held(stock) + view.working(stock)
        for reading in readings:
            view.gauge(f"delta:{reading.bond.id}", float(reading.value.delta))
            view.gauge(f"value:{reading.bond.id}", float(reading.value.price))
        view.gauge(f"gap:{stock}", float(held) - want)
        band = Band(want - width, want + width, want if self._to == "centre" else None)
        found = decide(band, float(held), share.lot, policy=self.name)
        if found.stay:
            return None
        memory = self._known()
        gap = found.quantity - held
        self._count_need(seen, gap)
        self._memory = msgspec.structs.replace(self._known(), hedges=memory.hedges + 1, shares=memory.shares + abs(gap))
        seen_by = evidence(
            view,
            stock,
            underlying=stock,
            policy=self.name,
            delta=delta,
            gamma=gamma,
            band=(band.lo, band.hi),
            vols={r.bond.id: m.vol for r in readings if (m := self._model(r.bond)) is not None},
        )
        reason = found.reason if bonds else f"{self.name}: no bond is left to hedge"
        line = TargetLine(stock, found.quantity, found.unrounded)
        return Target(book=self.book, lines=(line,), reason=reason, evidence=seen_by)

    def _hedge_credit(self, view: StrategyView) -> list[Target]:
        """Protection against what a wider spread takes: -(credit delta of all bonds) / what a contract gains by it."""
        assert self._credit is not None and self._credit_per is not None and self._memory is not None  # asked only then
        total = 0.0
        for key, own in self._memory.bonds.items():
            count = 0.0 if own.gone else float(self._exposure(view, key))
            if count and own.credit_delta is None:
                return []  # not known yet: the next re-mark looks again
            total += count * (own.credit_delta or 0.0)
        seen = sight(view, self._credit, stale_after=self._stale_after)
        want = float(self._memory.credit_opened) - total / self._credit_per
        width = self._credit_width if total else 0.0
        held = view.held(self._credit) + view.working(self._credit)
        item = view.universe.get(self._credit)
        found = decide(Band(want - width, want + width, want), float(held), item.lot, policy=f"{self.name} credit")
        view.gauge("credit_delta", total)
        if found.stay:
            return []
        if seen.fault:
            view.skip(self._credit, seen.fault)
            return []
        line = TargetLine(self._credit, found.quantity, found.unrounded)
        saw = evidence(view, self._credit, underlying=self._credit, policy=self.name, band=(want - width, want + width))
        return [Target(book=self.book, lines=(line,), reason=found.reason, evidence=saw)]

    # ------------------------------------------------------------------ what is known

    def _bond(self, view: StrategyView, key: str) -> ConvertibleBond:
        item: Instrument = view.universe.get(key)
        if not isinstance(item, ConvertibleBond):
            raise ValueError(f"{self.name}: positions: expected a convertible, found {type(item).__name__} {key}")
        return item

    def _terms(self, bond: ConvertibleBond) -> ConvertibleTerms:
        """The terms in force: its own, or what a call left of them."""
        own = self._own(bond.id)
        if own.called_at is None:
            return bond.terms
        price = own.call_price * float(bond.multiplier)
        return called(bond.terms, at=bond.years(own.called_at), price=price)

    def _model(self, bond: ConvertibleBond) -> ConvertibleModel | None:
        """The model in force: its own, with the vol and credit of the last re-mark or notice."""
        model, own = bond.model, self._own(bond.id)
        if model is None:
            return None
        changes: dict[str, float] = {} if own.vol is None else {"vol": own.vol}
        if own.credit is not None:
            changes["hazard" if model.hazard is not None else "spread"] = own.credit
        rate = self._stock_of(bond).rate
        if rate is not None:
            changes["borrow"] = rate
        return msgspec.structs.replace(model, **changes) if changes else model

    def _value(self, view: StrategyView, bond: ConvertibleBond, spot: float) -> BondValue:
        """What a bond is worth at this price; a bond that is gone has no delta."""
        own = self._own(bond.id)
        if own.gone:
            return BondValue(*(np.zeros(()) for _ in BondValue._fields))
        return self._shelf.value(bond, spot, view.now, model=self._model(bond), terms=self._terms(bond))

    def _count(self, view: StrategyView, key: str) -> Decimal:
        """How many bonds there should be: what is wanted, else what is held and on its way."""
        own = self._own(key)
        return self._exposure(view, key) if own.wanted is None or own.gone else own.wanted

    def _ended(self, view: StrategyView, key: str) -> bool:
        """True for a bond that was redeemed, converted or put; also where nobody told it, as in account `static`."""
        own = self._own(key)
        if own.gone:
            return own.gone != "defaulted"
        untold = bool(own.opened or own.asked) and own.wanted != ZERO and not self._exposure(view, key)
        return untold or (bool(own.elected) and not view.held(key))

    @staticmethod
    def _exposure(view: StrategyView, key: str) -> Decimal:
        return view.held(key) + view.working(key)

    def _known(self) -> Memory:
        assert self._memory is not None  # made at the start
        return self._memory

    def _own(self, key: str) -> BondMemory:
        return self._known().bonds[key]

    def _memory_of(self, stock: str) -> StockMemory:
        return self._known().stocks[stock]

    def _stock_of(self, bond: ConvertibleBond) -> StockMemory:
        return self._memory_of(bond.underlying)

    def _note(self, key: str, **changes: object) -> None:
        memory = self._known()
        changed = msgspec.structs.replace(memory.bonds[key], **changes)
        self._memory = msgspec.structs.replace(memory, bonds={**memory.bonds, key: changed})

    def _note_stock(self, stock: str, **changes: object) -> None:
        memory = self._known()
        changed = msgspec.structs.replace(memory.stocks[stock], **changes)
        self._memory = msgspec.structs.replace(memory, stocks={**memory.stocks, stock: changed})

    def _wish(self, key: str, count: Decimal, why: str) -> None:
        self._note(key, wanted=count, why=why)

    def _count_need(self, seen: Sight, gap: Decimal) -> None:
        need = needed_over_shown(seen, gap)
        memory = self._known()
        if need > memory.over_shown:
            self._memory = msgspec.structs.replace(memory, over_shown=need)

    def _keep(self, view: StrategyView) -> None:
        view.memory(self.name, self._known())

    # ------------------------------------------------------------------ the report

    def figures(self, view: StrategyView) -> Figures:
        """Each bond with its model beside its market, how sure its delta is, and what hedging it took."""
        memory = self._memory
        if memory is None:
            return {}
        tables: dict[str, Mapping[str, float | str | None]] = {}
        for key in self._holdings:
            bond = self._bond(view, key)
            tables[key] = dict(self._bond_rows(view, bond))
            doubt = dict(self._doubt_rows(view, bond))
            if doubt:
                tables[f"{key}: how sure the delta is"] = doubt
        tables["hedging"] = dict(self._hedging_rows(view, memory))
        return tables

    def _bond_rows(self, view: StrategyView, bond: ConvertibleBond) -> Iterator[tuple[str, float | str | None]]:
        own, model = self._own(bond.id), self._model(bond)
        yield "bonds held", float(view.held(bond.id))
        yield "became", own.gone or None
        yield "because", own.why or None
        yield "coupons received", float(own.coupons)
        yield "re-marks without a fit", float(own.uncalibrated)
        yield "vol of the model", None if model is None else model.vol
        yield "credit of the model", None if model is None else model.spread if model.hazard is None else model.hazard
        if self._ended(view, bond.id):
            return
        value = self._value(view, bond, sight(view, bond.underlying).price)
        mark = view.mark(bond.id)
        market = math.nan if mark is None else float(mark)
        worth, parity, floor = (float(x) for x in (value.price, value.parity, value.floor))
        yield "market, dirty, % of face", _known(market)
        yield "market, clean, % of face", _known(market - bond.accrued(view.now))
        yield "model, dirty, % of face", _known(worth)
        yield "cheapness against the model", _known(1.0 - market / worth) if worth else None
        yield "parity, % of face", _known(parity)
        yield "premium over parity", _known(market / parity - 1.0) if parity else None
        yield "bond floor, % of face", _known(floor)
        yield "delta, shares a bond", _known(float(value.delta))
        yield "gamma, shares a bond per 1", _known(float(value.gamma))
        yield "theta, % of face a day", _known(float(value.theta) / DAYS_PER_YEAR)
        yield "credit delta, money a bond per 1.00", own.credit_delta

    def _doubt_rows(self, view: StrategyView, bond: ConvertibleBond) -> Iterator[tuple[str, float | str | None]]:
        """Delta by the other model, and at the vols of bid and ask: model risk in shares of the position."""
        model, own = self._model(bond), self._own(bond.id)
        seen, stock = sight(view, bond.id), sight(view, bond.underlying)
        if model is None or own.gone or math.isnan(stock.price) or bond.years(view.now) >= self._terms(bond).maturity:
            return
        base = float(self._value(view, bond, stock.price).delta)
        deltas: dict[str, float] = {}
        for name in ("afv", "tf"):
            other = msgspec.structs.replace(model, model=name)
            found = self._shelf.value(bond, stock.price, view.now, model=other, terms=self._terms(bond))
            deltas[f"delta by {name}"] = float(found.delta)
        for side, price in (("bid", seen.bid), ("ask", seen.ask)):
            vol = self._side_vol(view, bond, model, stock.price, price)
            changed = msgspec.structs.replace(model, vol=vol) if math.isfinite(vol) else None
            if changed is not None:
                found = self._shelf.value(bond, stock.price, view.now, model=changed, terms=self._terms(bond))
                deltas[f"delta at the vol of the {side}"] = float(found.delta)
        yield from ((name, _known(value)) for name, value in deltas.items())
        far = max((abs(value - base) for value in deltas.values() if math.isfinite(value)), default=0.0)
        yield "shares in doubt", far * float(view.held(bond.id))

    def _side_vol(
        self, view: StrategyView, bond: ConvertibleBond, model: ConvertibleModel, spot: float, price: float
    ) -> float:
        if math.isnan(price):
            return math.nan
        return implied(
            self._terms(bond),
            model,
            spot=spot,
            price=price * float(bond.multiplier),
            at=bond.years(view.now),
            by="vol",
            accuracy=self._shelf.accuracy,
            near=model.vol,
        )

    def _hedging_rows(self, view: StrategyView, memory: Memory) -> Iterator[tuple[str, float | str | None]]:
        days = (view.now - memory.began) / NS_PER_DAY
        yield "hedges", float(memory.hedges)
        yield "hedges a day", memory.hedges / days if days > 0 else None
        yield "shares traded by hedges", float(memory.shares)
        for key, own in memory.stocks.items():
            yield f"{key} held", float(view.held(key))
            yield f"{key} that can be borrowed", None if own.borrowable is None else float(own.borrowable)
            yield f"{key} borrow rate as told", own.rate
        yield "greatest need over displayed size", memory.over_shown or None
        for kind, amount in paid_so_far(view).items():
            yield f"account: {kind}", amount


def _holding(given: Holding | Mapping[str, object]) -> Holding:
    return given if isinstance(given, Holding) else msgspec.convert(dict(given), Holding)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
