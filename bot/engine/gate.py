"""The gate is asked before every order of an account; law: what it refuses is never recorded as an order nor sent, and a
check that fails refuses.

It holds what limits need to remember: rates, repeats, rejects, losses, the kill ladder, and orders that wait for a person.
Time is event time. What must outlive a restart is in the journal's facts; `Standing` folds them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from bot.domain.instruments import ConvertibleBond, Instrument, OptionContract
from bot.domain.orders import Order, OrderStatus, Refusal
from bot.domain.units import NEVER, NS_PER_DAY, NS_PER_MINUTE, Nanos, iso
from bot.engine import kill, limits
from bot.engine.exposure import Proxy, Range, Totals, Unit, Units, sum_up, worst_loss
from bot.engine.journal import Controlled
from bot.engine.kill import KillState, Rung
from bot.engine.limits import Bucket, Limit, LimitSettings, LimitView, refuse

if TYPE_CHECKING:
    from bot.core.events import Target
    from bot.engine.account import Account, OrderState

ZERO: Final = Decimal(0)
NAN: Final = math.nan
SLACK: Final = 1e-9
"""Share of a bound within which a sum of floats counts as at it."""
ROWS_PER_SECOND: Final = 1.0
ROWS_AT_ONCE: Final = 10
"""Refusals of one sort that are written down; more are counted and told by the next that is."""
FLATTEN_ATTEMPTS: Final = 20
KEPT_SHARE: Final = Decimal("0.1")
"""How far, as a share of the drawdown bound, a new peak may go unrecorded."""

TIGHTEN: Final = "tighten"
THROTTLE: Final = "throttle"
ENABLE: Final = "enable"
MODE: Final = "mode"
APPROVE: Final = "approve"
DECLINE: Final = "decline"
DRILL: Final = "drill"
DAY: Final = "day"
PEAK: Final = "peak"

RISK: Final = ("max_delta", "max_gamma", "max_vega", "max_stress_loss", "hedge_band")


class Mode(msgspec.Struct, frozen=True, kw_only=True):
    """How far an account is let: `observe` decides and sends nothing, `confirm` asks a person for each order, `live` sends.

    `size_fraction` scales what strategies want to hold beyond what the book opened with; `confirm_within` is how long an
    order waits, in nanoseconds. Changed by a restart only.
    """

    stage: Literal["observe", "confirm", "live"] = "live"
    size_fraction: Decimal = Decimal(1)
    confirm_within: Nanos = 5 * NS_PER_MINUTE

    def __post_init__(self) -> None:
        if not (self.size_fraction.is_finite() and 0 < self.size_fraction <= 1):
            raise ValueError(f"mode: size_fraction: expected above 0 and at most 1, found {self.size_fraction}")
        if not 0 < self.confirm_within <= 7 * NS_PER_DAY:
            raise ValueError(f"mode: confirm_within: expected up to 7 days, found {self.confirm_within} ns")

    @property
    def is_plain(self) -> bool:
        """True when everything is sent at its full size."""
        return self.stage == "live" and self.size_fraction == 1

    @property
    def words(self) -> str:
        """The mode as the journal tells it."""
        return f"{self.stage} {self.size_fraction}"


class GateSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate of one account holds orders against."""

    limits: LimitSettings = LimitSettings()
    mode: Mode = Mode()
    proxies: Mapping[str, Proxy] = {}


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate of one account remembers over a restart. Law: a pure fold of the account's facts.

    `tightened` holds until a process begins with another configuration; `throttled` names books and why; `day` is the
    last day (days since 1970, shifted by `day_begins`) with its equity at the start, `peak` what drawdowns are measured from.
    """

    kill: KillState = KillState()
    tightened: tuple[str, ...] = ()
    throttled: dict[str, str] = {}
    day: int | None = None
    day_equity: Decimal | None = None
    peak: Decimal | None = None

    def apply(self, fact: object) -> Standing:
        """The standing after a fact."""
        if not isinstance(fact, Controlled):
            return self
        argument = fact.argument
        change = msgspec.structs.replace
        match fact.verb:
            case kill.PULL:
                return change(self, kill=self.kill.apply(fact))
            case kill.CLEAR:
                return change(self, kill=KillState(), day=None, day_equity=None, peak=None)
            case "tighten":
                return change(self, tightened=(*self.tightened, argument))
            case "throttle":
                book, _, why = argument.partition(": ")
                return change(self, throttled={**self.throttled, book: why})
            case "enable":
                return change(self, throttled={k: v for k, v in self.throttled.items() if k != argument})
            case "day":
                day, equity = argument.split(" ")
                return change(self, day=int(day), day_equity=Decimal(equity))
            case "peak":
                return change(self, peak=Decimal(argument))
        return self

    def reconfigured(self) -> Standing:
        """The standing of a process that began with another configuration: its bounds are the new ones."""
        return msgspec.structs.replace(self, tightened=())


class Waiting(NamedTuple):
    """An order that waits for a person: at most this quantity of this instrument, until `until`."""

    ticket: str
    instrument: str
    quantity: Decimal
    until: Nanos
    target: Target


class _Open:
    """What rests or is under way in one instrument."""

    __slots__ = ("best_buy", "best_sell", "high", "low", "unanswered")

    def __init__(self) -> None:
        self.low = ZERO
        self.high = ZERO
        self.best_buy: Decimal | None = None
        self.best_sell: Decimal | None = None
        self.unanswered: list[tuple[Decimal, Nanos]] = []

    def add(self, state: OrderState) -> None:
        order, left = state.order, state.left
        price = order.limit
        if left > 0:
            self.high += left
            price = _MOST if price is None else price
            self.best_buy = price if self.best_buy is None else max(self.best_buy, price)
        else:
            self.low += left
            price = ZERO if price is None else price
            self.best_sell = price if self.best_sell is None else min(self.best_sell, price)
        if state.status is OrderStatus.SUBMITTED or state.status is OrderStatus.UNKNOWN:
            self.unanswered.append((order.quantity, order.ts))


_MOST: Final = Decimal("Infinity")
_NOTHING: Final = _Open()
_NO_RANGE: Final = Range(0.0, 0.0)


class _Weighed:
    """An order against the risk of its underlying. Deltas in underlying units; ranges cover what open orders may do."""

    __slots__ = ("delta", "linear", "totals", "underlying", "unit", "working")

    def __init__(self, underlying: str) -> None:
        self.underlying = underlying
        self.totals: Totals | None = None
        self.unit: Unit | None = None
        self.delta = NAN
        self.linear = NAN
        self.working = _NO_RANGE


class Gate:
    """The checks of one account, with what they remember. Mutable; asked and told by its account only."""

    def __init__(
        self,
        account: Account,
        settings: GateSettings | None = None,
        *,
        given: Sequence[tuple[str, Limit]] = (),
        units: Units | None = None,
    ) -> None:
        settings = GateSettings() if settings is None else settings
        self._account = account
        self._given = list(given)
        self.limits = settings.limits
        self.mode = settings.mode
        self.units = units if units is not None else _own_units(account, settings)
        self.standing = Standing()
        self.trips: dict[str, int] = {}
        self.waiting: dict[str, Waiting] = {}
        self.scale = None if settings.mode.size_fraction == 1 else settings.mode.size_fraction
        self._tickets = 0
        self._rows: dict[tuple[str, str], Bucket] = {}
        self._untold: dict[tuple[str, str], int] = {}
        self._attempts: dict[str, deque[Nanos]] = {}
        self._cool: dict[str, Nanos] = {}
        self._sides: dict[tuple[str, str], bool] = {}
        self._reversals: dict[tuple[str, str], deque[Nanos]] = {}
        self._rejects: deque[Nanos] = deque()
        self._flattened: dict[str, int] = {}
        self._open: dict[str, _Open] = {}
        self._open_by: dict[str, list[tuple[str, _Open]]] = {}
        self._orders_seen = (-1, -1)
        self._book: object = None
        self._book_seen = -1
        self._curved: dict[str, dict[str, Decimal]] = {}
        self._curved_version: dict[str, int] = {}
        self._totals: dict[str, tuple[object, int, int, Totals]] = {}
        self._linear: dict[str, list[tuple[str, float | None]]] = {}
        self._underlyings: dict[str, str] = {}
        self._linear_seen = (-1, -1)
        self._view: LimitView | None = None
        self._weighed: _Weighed | None = None
        self._orders: Bucket | None = None
        self._cancels: Bucket | None = None
        self._bounds = 0
        self.rebuild()

    # ------------------------------------------------------------------ which checks

    def rebuild(self) -> None:
        """Take the limits as they are now: at the start, and when a person tightened one."""
        bounds = self.limits
        own = limits.build(bounds)
        # bounds that were given as functions stand beside those a person sets later: both are asked
        self.checks: list[tuple[str, Limit]] = [*self._given, *own[2:]] if self._given else own
        stateful: list[tuple[str, Limit, bool]] = [
            ("throttled", self._throttled, True),
            ("self_cross", self._self_cross, bounds.self_cross),
            ("duplicate", self._duplicate, bounds.duplicate_window is not None),
            ("attempts", self._capped, bounds.max_attempts is not None),
            ("delta", self._delta, bounds.any_of("max_delta")),
            ("hedge_direction", self._hedge, bounds.any_of("hedge_band")),
            ("gamma", self._gamma, bounds.any_of("max_gamma")),
            ("vega", self._vega, bounds.any_of("max_vega")),
            ("stress", self._stress, bounds.any_of("max_stress_loss")),
            ("order_rate", self._rate, bounds.orders_per_second is not None),
        ]
        self.stateful: list[tuple[str, Limit]] = [(code, check) for code, check, wanted in stateful if wanted]
        self._asked: tuple[Limit, ...] = (
            limits.refuse_frozen,
            *(c for _, c in self.checks),
            *(c for _, c in self.stateful),
        )
        self._weighs = bounds.any_of(*RISK)
        self._prices = any(code not in {"frozen", "restricted"} for code, _ in self.checks)
        self._watches_loss = bounds.daily_loss is not None or bounds.drawdown is not None
        self._bounds += 1
        if bounds.orders_per_second is not None:
            self._orders = Bucket(bounds.orders_per_second, bounds.order_burst)
        if bounds.cancels_per_second is not None:
            self._cancels = Bucket(bounds.cancels_per_second, bounds.cancel_burst)

    @property
    def kill(self) -> KillState:
        """The rung this account stands on."""
        return self.standing.kill

    @property
    def watches_valuations(self) -> bool:
        """True when a valuation concerns the gate: losses are watched, risk is limited, or an order waits."""
        return self._watches_loss or self._weighs or bool(self.waiting) or self.kill.rung >= Rung.NO_NEW_RISK

    def restore(self, standing: Standing) -> None:
        """Go on from what the journal tells; a bound that the configuration has made tighter stays so."""
        self.standing = standing
        for words in standing.tightened:
            try:
                self.limits = limits.tightened(self.limits, words)
            except ValueError:
                continue  # the configuration is tighter by now, or names no such bound any more
        self.rebuild()

    def note(self, verb: str, argument: str) -> None:
        """Put on the record what the gate must remember, and remember it."""
        fact = Controlled(account=self._account.name, verb=verb, argument=argument)
        self.standing = self.standing.apply(fact)
        self._account.pending.append(fact)

    # ------------------------------------------------------------------ may this order leave

    def check(self, order: Order, *, flattens: bool = False) -> Refusal | None:
        """Why this order may not leave, None when it may. A check that raises refuses: what cannot be checked is not sent."""
        rung = self.standing.kill.rung
        if rung >= Rung.CANCEL_ALL and not (flattens and rung >= Rung.FLATTEN):
            return refuse(order, "kill", self.kill.words)
        try:
            return self._ask(order, rung, flattens)
        except Exception as fault:  # noqa: BLE001  whatever a check stumbles over, the order stays here
            return refuse(order, "gate_fault", f"a check raised {type(fault).__name__}: {fault}")

    def may_leave(self, order: Order, passed: Rung) -> str:
        """Why an order that passed on the rung `passed` may not be handed on now, empty when it may."""
        rung = self.standing.kill.rung
        if self._account.halted:
            return self._account.halted
        if rung <= max(passed, Rung.ALERT):
            return ""
        held = self._account.ledger.book.quantity(order.instrument)
        if rung is Rung.NO_NEW_RISK and abs(held + order.quantity) <= abs(held) and held * (held + order.quantity) >= 0:
            return ""
        return self.kill.words

    def _ask(self, order: Order, rung: Rung, flattens: bool) -> Refusal | None:
        account = self._account
        self._weighed = None
        view = self._see(order)
        if flattens:
            return limits.refuse_frozen(order, view) or self._listed(order, view)
        if rung >= Rung.NO_NEW_RISK:
            refusal = self._killed(order, view, rung)
            if refusal is not None:
                return refusal
        if self._weighs:
            self._weighed = self._weigh(order, view.instrument, account.now if order.ts < account.now else order.ts)
        for check in self._asked:
            refusal = check(order, view)
            if refusal is not None:
                return refusal
        return None

    def _listed(self, order: Order, view: LimitView) -> Refusal | None:
        found = dict(self.checks).get("restricted")
        return None if found is None else found(order, view)

    def _see(self, order: Order) -> LimitView:
        account = self._account
        key = order.instrument
        universe = account.universe
        k = universe.index(key)
        seen = (account.order_version, len(account.open_ids))
        if self._orders_seen != seen:
            self._read_orders(seen)
        found = self._open.get(key)
        held = account.ledger.book.quantity(key)
        view = self._view
        if view is None:
            view = self._view = LimitView(
                instrument=universe[k], price=NAN, quote_age_ns=None, held=ZERO, open_orders=0
            )
        view.instrument = universe[k]
        if found is None:
            view.held = view.low = view.high = held
        else:
            view.low, view.high = held + found.low, held + found.high
            view.held = view.low + found.high
        view.open_orders = seen[1]
        view.frozen = account.why_frozen(key) if account.halted or account.frozen else ""
        if self._prices:
            self._see_price(order, view, k)
        return view

    def _see_price(self, order: Order, view: LimitView, k: int) -> None:
        marks = self._account.marks
        bid, ask = marks.bids[k], marks.asks[k]
        quoted, printed = marks.quote_times[k], marks.last_times[k]
        seen = quoted if quoted > printed else printed
        view.quote_age_ns = None if seen == NEVER else order.ts - seen
        if bid <= ask:
            view.price = 0.5 * (bid + ask)
            view.touch = ask if order.quantity > 0 else bid
        else:
            view.price, view.touch = marks.last(k), NAN

    def _read_orders(self, seen: tuple[int, int]) -> None:
        """Sum up what is open, by instrument: rebuilt when an order changed, from the orders themselves."""
        self._orders_seen = seen
        if not seen[1]:
            if self._open:
                self._open, self._open_by = {}, {}
            return
        account = self._account
        found: dict[str, _Open] = {}
        for order_id in account.open_ids:
            state = account.orders[order_id]
            key = state.order.instrument
            known = found.get(key)
            if known is None:
                known = found[key] = _Open()
            known.add(state)
        self._open, self._open_by = found, {}

    # ------------------------------------------------------------------ rungs

    def _killed(self, order: Order, view: LimitView, rung: Rung) -> Refusal | None:
        """On the two middle rungs only what lowers a risk leaves; for a position no model is asked."""
        if rung < Rung.HEDGE_ONLY and limits.reduces(order, view):
            return None
        if isinstance(view.instrument, OptionContract | ConvertibleBond):
            return refuse(order, "kill", self.kill.words)
        weighed = self._weigh(order, view.instrument, order.ts)
        if self._lowers_delta(weighed, order, view.instrument):
            return None
        return refuse(order, "kill", self.kill.words)

    def _lowers_delta(self, w: _Weighed, order: Order, instrument: Instrument) -> bool:
        """True when the net delta comes nearer to zero whatever becomes of open orders, past zero by half a lot at most."""
        lot = 0.0 if instrument.lot is None else float(instrument.lot)
        past = max(0.5 * abs(w.delta) * lot / abs(float(order.quantity)), self._band_of(w.underlying))
        low, high = self._net(w)
        if w.delta > 0:
            return high < 0 and high + w.delta <= min(-high, past * (1 + SLACK))
        return low > 0 and low + w.delta >= -min(low, past * (1 + SLACK))

    def _band_of(self, underlying: str) -> float:
        found = self.limits.of("hedge_band", underlying)
        return 0.0 if found is None else float(found)

    # ------------------------------------------------------------------ risk by underlying

    def _weigh(self, order: Order, instrument: Instrument, now: Nanos) -> _Weighed:
        """The order and the account on its underlying: totals of the last valuation, linear holdings as they are now."""
        self._read_universe()
        u = self._underlyings[instrument.id]
        w = _Weighed(u)
        w.totals = self.totals(u, now)
        q = float(order.quantity)
        if isinstance(instrument, OptionContract | ConvertibleBond):
            priced = self.units.at(u, now)
            w.unit = self.units.unit(priced, instrument, now)
            w.delta = q * w.unit.delta
        else:
            w.delta = q * self.units.linear_delta(instrument)
        book = self._account.ledger.book
        linear = 0.0
        for key, per_contract in self._linear.get(u, ()):
            held = book.quantity(key)
            if held:
                each = per_contract if per_contract is not None else self._linear_delta(key)
                linear += float(held) * each
        w.linear = linear
        if self._open:
            w.working = self._working(u, now)
        return w

    def _linear_delta(self, key: str) -> float:
        return self.units.linear_delta(self._account.universe.get(key))

    def _working(self, u: str, now: Nanos) -> Range:
        """The least and greatest delta that open orders on an underlying may still add."""
        low = high = 0.0
        for key, found in self._open.items():
            if self._underlyings[key] != u:
                continue
            instrument = self._account.universe.get(key)
            if isinstance(instrument, OptionContract | ConvertibleBond):
                each = self.units.unit(self.units.at(u, now), instrument, now).delta
            else:
                each = self._linear_delta(key)
            a, b = float(found.low) * each, float(found.high) * each
            low += min(a, 0.0) + min(b, 0.0)
            high += max(a, 0.0) + max(b, 0.0)
            if math.isnan(a) or math.isnan(b):
                return Range(NAN, NAN)
        return Range(low, high)

    def _read_universe(self) -> None:
        """Which instruments carry the risk of which underlying: anew when one is listed."""
        account = self._account
        seen = (len(account.universe), len(account.valuation.slices))
        if seen == self._linear_seen:
            return
        self._linear_seen = seen
        self._linear, self._underlyings = {}, {}
        for item in account.universe:
            u = self._underlyings[item.id] = self.units.underlying_of(item)
            if isinstance(item, OptionContract | ConvertibleBond):
                continue
            fixed = item.id not in self.units.proxies and not getattr(item, "inverse", False)
            self._linear.setdefault(u, []).append((item.id, float(item.multiplier) if fixed else None))
        self._book = None

    def totals(self, u: str, now: Nanos) -> Totals:
        """What the account's contracts with curvature on an underlying sum to, as of the last valuation."""
        self._read_book()
        priced = self.units.at(u, now)
        version = self._curved_version.get(u, 0)
        known = self._totals.get(u)
        if known is not None and known[0] is priced and known[1] == version and known[2] == self._bounds:
            return known[3]
        universe = self._account.universe
        held = {
            key: q
            for key, q in self._curved.get(u, {}).items()
            if not isinstance(item := universe.get(key), OptionContract) or item.expiry > now
        }
        priced = self.units.warm(u, held, now)
        bound = self.limits.of("max_stress_loss", u)
        totals = sum_up(priced, held, priced.units, self.units.shocks, None if bound is None else bound * (1 + SLACK))
        self._totals[u] = (priced, version, self._bounds, totals)
        return totals

    def _read_book(self) -> None:
        """Take over what changed of the contracts with curvature."""
        book = self._account.ledger.book
        if book is self._book and book.version == self._book_seen:
            return
        whole = book is not self._book
        changed = book.instruments() if whole else book.changed_since(self._book_seen)
        if whole:
            for u in self._curved:
                self._curved_version[u] = self._curved_version.get(u, 0) + 1
            self._curved = {}
        universe = self._account.universe
        for key in changed:
            if not isinstance(universe.get(key), OptionContract | ConvertibleBond):
                continue
            u = self._underlyings[key]
            held = self._curved.setdefault(u, {})
            quantity = book.quantity(key)
            if quantity:
                held[key] = quantity
            else:
                held.pop(key, None)
            self._curved_version[u] = self._curved_version.get(u, 0) + 1
        self._book, self._book_seen = book, book.version

    def _net(self, w: _Weighed) -> Range:
        """Net delta now, from the least to the greatest it may become by open orders."""
        t = w.totals
        if t is None:
            return Range(NAN, NAN)
        delta = w.linear + t.delta
        if t.gamma:
            delta += t.gamma * (self.units.price(w.underlying) - t.spot)
        return Range(delta + w.working.low, delta + w.working.high)

    def net_delta(self, underlying: str, now: Nanos) -> Range:
        """The account's net delta on an underlying with open orders both ways, in underlying units; NaN while unknown."""
        self._read_universe()
        seen = (self._account.order_version, len(self._account.open_ids))
        if self._orders_seen != seen:
            self._read_orders(seen)
        w = _Weighed(underlying)
        w.totals = self.totals(underlying, now)
        book = self._account.ledger.book
        w.linear = sum(
            float(book.quantity(key)) * self._linear_delta(key) for key, _ in self._linear.get(underlying, ())
        )
        w.working = self._working(underlying, now)
        return self._net(w)

    def _is_exempt(self, order: Order, view: LimitView) -> bool:
        """Closing orders that only reduce a position bring a hedge home; no limit of risk keeps it out."""
        return order.closing and limits.reduces(order, view)

    def _delta(self, order: Order, view: LimitView) -> Refusal | None:
        w = self._weighed
        assert w is not None  # weighed whenever a bound of risk is set
        bound = self.limits.of("max_delta", w.underlying)
        return None if bound is None else self._side(order, view, ("delta", "max_delta"), self._net(w), w.delta, bound)

    def _hedge(self, order: Order, view: LimitView) -> Refusal | None:
        """A hedge may always lower |delta|; it never raises it past the band."""
        w = self._weighed
        assert w is not None  # weighed whenever a bound of risk is set
        band = self.limits.of("hedge_band", w.underlying)
        if band is None or w.unit is not None:
            return None
        return self._side(order, view, ("hedge_direction", "hedge_band"), self._net(w), w.delta, band)

    def _side(
        self, order: Order, view: LimitView, names: tuple[str, str], now: Range, change: float, bound: float
    ) -> Refusal | None:
        """Hold one side: an order that raises a sum is held to its greatest, one that lowers it to its least.

        So an order toward zero always passes, and one past it only as far as the bound on the other side.
        """
        wide = bound + SLACK * bound
        if change > 0.0:
            after = now.high + change
            if after <= wide:
                return None
        elif change < 0.0:
            after = now.low + change
            if after >= -wide:
                return None
        elif change == 0.0:
            return None
        else:
            after = change
        if self._is_exempt(order, view):
            return None
        code, name = names
        if math.isnan(after):
            w = self._weighed
            where = "" if w is None else w.underlying
            return refuse(order, code, f"the {code} of {where} is not known, {name} is {bound:g}")
        return refuse(order, code, f"net {code} of {after:,.4g} would exceed {name} {bound:g}")

    def _gamma(self, order: Order, view: LimitView) -> Refusal | None:
        return self._curvature(order, view, "gamma", "max_gamma")

    def _vega(self, order: Order, view: LimitView) -> Refusal | None:
        return self._curvature(order, view, "vega", "max_vega")

    def _curvature(self, order: Order, view: LimitView, code: str, name: str) -> Refusal | None:
        w = self._weighed
        assert w is not None and w.totals is not None  # weighed whenever a bound of risk is set
        bound = self.limits.of(name, w.underlying)
        if bound is None or w.unit is None:  # only contracts with curvature add any
            return None
        held = float(getattr(w.totals, code))
        low = high = held
        for key, found in self._open.items():
            instrument = self._account.universe.get(key)
            if self._underlyings[key] != w.underlying or not isinstance(instrument, OptionContract | ConvertibleBond):
                continue
            each = float(getattr(self.units.unit(self.units.at(w.underlying, order.ts), instrument, order.ts), code))
            a, b = float(found.low) * each, float(found.high) * each
            low += min(a, 0.0) + min(b, 0.0)
            high += max(a, 0.0) + max(b, 0.0)
            if math.isnan(a) or math.isnan(b):
                low = high = NAN
        change = float(order.quantity) * float(getattr(w.unit, code))
        return self._side(order, view, (code, name), Range(low, high), change, bound)

    def _stress(self, order: Order, view: LimitView) -> Refusal | None:
        """No shock of the grid may lose more than the bound, unless the order lowers the greatest loss."""
        w = self._weighed
        assert w is not None and w.totals is not None  # weighed whenever a bound of risk is set
        bound = self.limits.of("max_stress_loss", w.underlying)
        if bound is None:
            return None
        t = w.totals
        if w.unit is None and not self._has_open_curved(w.underlying):
            # a straight line: the deltas at which no shock loses too much are an interval, known since the valuation
            low = w.linear + w.working.low + min(w.delta, 0.0)
            high = w.linear + w.working.high + max(w.delta, 0.0)
            if t.most_short <= low and high <= t.most_long:
                return None
        return self._stress_on_grid(order, view, w, float(bound))

    def _has_open_curved(self, u: str) -> bool:
        universe = self._account.universe
        return any(
            self._underlyings[key] == u and isinstance(universe.get(key), OptionContract | ConvertibleBond)
            for key in self._open
        )

    def _stress_on_grid(self, order: Order, view: LimitView, w: _Weighed, bound: float) -> Refusal | None:
        before, after = self._losses(order, w)
        if after >= -bound * (1 + SLACK) or after >= before:
            return None
        if self._is_exempt(order, view):
            return None
        if math.isnan(after):
            return refuse(
                order, "stress", f"the stress loss of {w.underlying} is not known, max_stress_loss is {bound:g}"
            )
        text = f"stress loss of {-after:,.2f} on {w.underlying} would exceed max_stress_loss {bound:g}"
        return refuse(order, "stress", text)

    def _losses(self, order: Order, w: _Weighed) -> tuple[float, float]:
        """The least P&L over the grid without the order and with it."""
        import numpy as np  # noqa: PLC0415  only where a grid is asked for

        t = w.totals
        assert t is not None  # the caller weighed the order
        shocks = self.units.shocks
        grid = t.pnl if t.pnl is not None else np.zeros((len(shocks), len(self.units.vols)))
        if math.isnan(t.delta):
            return NAN, NAN
        aside_low = aside_high = 0.0
        for key, found in self._open.items():
            if self._underlyings[key] != w.underlying:
                continue
            instrument = self._account.universe.get(key)
            if isinstance(instrument, OptionContract | ConvertibleBond):
                unit = self.units.unit(self.units.at(w.underlying, order.ts), instrument, order.ts)
                if unit.pnl is None:
                    return NAN, NAN
                grid = (
                    grid + np.minimum(0.0, float(found.low) * unit.pnl) + np.minimum(0.0, float(found.high) * unit.pnl)
                )
                continue
            each = self._linear_delta(key)
            aside_low += float(found.low) * each
            aside_high += float(found.high) * each
        aside = Range(min(aside_low, aside_high), max(aside_low, aside_high))
        before = worst_loss(grid, w.linear, t.spot, shocks, aside)
        if w.unit is None:
            return before, worst_loss(grid, w.linear + w.delta, t.spot, shocks, aside)
        if w.unit.pnl is None:
            return before, NAN
        return before, worst_loss(grid + float(order.quantity) * w.unit.pnl, w.linear, t.spot, shocks, aside)

    # ------------------------------------------------------------------ repeats

    def _throttled(self, order: Order, view: LimitView) -> Refusal | None:
        if not self.standing.throttled:
            return None
        for allocation in order.allocations:
            why = self.standing.throttled.get(allocation.book)
            if why is not None:
                return refuse(
                    order, "throttled", f"book {allocation.book} is disabled until a person enables it: {why}"
                )
        return None

    def _self_cross(self, order: Order, view: LimitView) -> Refusal | None:
        found = self._open.get(order.instrument)
        if found is None:
            return None
        limit = order.limit
        if order.quantity > 0:
            against = found.best_sell
            crosses = against is not None and (limit is None or limit >= against)
        else:
            against = found.best_buy
            crosses = against is not None and (limit is None or limit <= against)
        if not crosses:
            return None
        return refuse(order, "self_cross", f"it would trade against our own open order in {order.instrument}")

    def _duplicate(self, order: Order, view: LimitView) -> Refusal | None:
        found = self._open.get(order.instrument)
        window = self.limits.duplicate_window
        if found is None or not found.unanswered or window is None:
            return None
        for quantity, ts in found.unanswered:
            if quantity == order.quantity and order.ts - ts <= window:
                text = f"an order of {quantity} {order.instrument} is unanswered since {iso(ts)}"
                return refuse(order, "duplicate", text)
        return None

    def _capped(self, order: Order, view: LimitView) -> Refusal | None:
        most, key, now = self.limits.max_attempts, order.instrument, order.ts
        if most is None:
            return None
        until = self._cool.get(key)
        if until is not None:
            if now < until:
                return refuse(order, "attempts", f"{key} cools down until {iso(until)} after {most} orders in a row")
            del self._cool[key]
            self._attempts.pop(key, None)
        sent = self._attempts.get(key)
        if sent is None:
            return None
        while sent and now - sent[0] > self.limits.attempt_window:
            sent.popleft()
        if len(sent) < most:
            return None
        until = self._cool[key] = sent[-1] + self.limits.cool_down
        if now >= until:
            del self._cool[key]
            sent.clear()
            return None
        return refuse(order, "attempts", f"{key} cools down until {iso(until)} after {most} orders in a row")

    def _rate(self, order: Order, view: LimitView) -> Refusal | None:
        if self._orders is None or self._orders.has(order.ts):
            return None
        return refuse(order, "order_rate", f"more than {self.limits.orders_per_second:g} orders a second")

    def note_sent(self, order: Order) -> None:
        """An order left: it counts against rates and caps."""
        if self._orders is not None:
            self._orders.take(order.ts)
        if self.limits.max_attempts is not None:
            self._attempts.setdefault(order.instrument, deque()).append(order.ts)

    def may_cancel(self, now: Nanos) -> bool:
        """True when a cancel may leave now; it counts. Cancels of the kill ladder never ask."""
        return self._cancels is None or self._cancels.take(now)

    def note_execution(self, order: Order, now: Nanos) -> list[tuple[str, str]]:
        """An order began to fill; the books that have turned round too often by it, each with why."""
        most = self.limits.max_reversals
        if most is None:
            return []
        found: list[tuple[str, str]] = []
        for allocation in order.allocations:
            key = (allocation.book, order.instrument)
            buys = allocation.quantity > 0
            before = self._sides.get(key)
            self._sides[key] = buys
            if before is None or before == buys:
                continue
            turns = self._reversals.setdefault(key, deque())
            turns.append(now)
            while now - turns[0] > self.limits.reversal_window:
                turns.popleft()
            if len(turns) > most and allocation.book not in self.standing.throttled:
                turns.clear()
                why = (
                    f"{order.instrument} turned round more than {most} times in {self.limits.reversal_window / 1e9:g} s"
                )
                found.append((allocation.book, why))
        return found

    def why_not_elected(self) -> str:
        """Why no bond may be converted or put now, empty when it may: that trades without an order."""
        if self.kill.rung >= Rung.NO_NEW_RISK:
            return self.kill.words
        return "" if self.mode.stage == "live" else f"mode {self.mode.stage}"

    # ------------------------------------------------------------------ what pulls a rung

    def note_reject(self, now: Nanos) -> tuple[Rung, str] | None:
        """A venue rejected an order; the rung this pulls, when it is one too many."""
        most = self.limits.max_rejects
        if most is None:
            return None
        rejects = self._rejects
        rejects.append(now)
        while now - rejects[0] > self.limits.reject_window:
            rejects.popleft()
        if len(rejects) < most:
            return None
        rejects.clear()
        self._trip("rejects")
        return self.limits.on_rejects, f"rejects: {most} in {self.limits.reject_window / 1e9:g} s"

    def note_equity(self, equity: Decimal | None, now: Nanos) -> list[tuple[Rung, str]]:
        """The rungs that a loss pulls, by the equity at a valuation; none while it is not known."""
        if equity is None:
            return []
        bounds, standing = self.limits, self.standing
        pulls: list[tuple[Rung, str]] = []
        day = (now - bounds.day_begins) // NS_PER_DAY
        if bounds.daily_loss is not None:
            if standing.day != day or standing.day_equity is None:
                self.note(DAY, f"{day} {equity}")
                standing = self.standing
            assert standing.day_equity is not None  # noted just now
            lost = standing.day_equity - equity
            if lost > bounds.daily_loss and standing.kill.rung < bounds.on_daily_loss:
                self._trip("daily_loss")
                pulls.append((bounds.on_daily_loss, f"daily_loss: {lost:,.2f} lost, the bound is {bounds.daily_loss}"))
        if bounds.drawdown is not None:
            if standing.peak is None or equity - standing.peak > KEPT_SHARE * bounds.drawdown:
                self.note(PEAK, f"{equity}")
            elif equity > standing.peak:
                self.standing = msgspec.structs.replace(self.standing, peak=equity)  # written once it is far enough
            assert self.standing.peak is not None  # noted just now
            lost = self.standing.peak - equity
            if lost > bounds.drawdown and self.kill.rung < bounds.on_drawdown:
                self._trip("drawdown")
                pulls.append(
                    (bounds.on_drawdown, f"drawdown: {lost:,.2f} below the peak, the bound is {bounds.drawdown}")
                )
        return pulls

    def _trip(self, code: str) -> None:
        self.trips[code] = self.trips.get(code, 0) + 1

    def pull(self, rung: Rung, cause: str) -> bool:
        """Go up to a rung; True when it is higher than now. Asks nobody and cannot fail: the record follows."""
        before = self.standing.kill
        after = before.pulled(rung, cause)
        if after is before:
            return False
        self.standing = msgspec.structs.replace(self.standing, kill=after)
        return True

    def clear(self) -> None:
        """A person lets the account go on: no rung, and losses are measured from here."""
        self._rejects.clear()
        self._flattened.clear()
        self.note(kill.CLEAR, "")

    def may_flatten(self, key: str) -> bool:
        """True while another order to close a holding may be tried; it counts."""
        self._flattened[key] = self._flattened.get(key, 0) + 1
        return self._flattened[key] <= FLATTEN_ATTEMPTS

    # ------------------------------------------------------------------ rows, tickets, sizes

    def row_of(self, refusal: Refusal) -> Refusal | None:
        """The refusal as it is written down; None when a flood of its sort is only counted."""
        key = (refusal.instrument, refusal.code)
        bucket = self._rows.get(key)
        if bucket is None:
            bucket = self._rows[key] = Bucket(ROWS_PER_SECOND, ROWS_AT_ONCE)
        if not bucket.take(refusal.ts):
            self._untold[key] = self._untold.get(key, 0) + 1
            return None
        more = self._untold.pop(key, 0)
        if not more:
            return refusal
        return msgspec.structs.replace(refusal, text=f"{refusal.text} (and {more} more since the last)")

    def wait(self, order: Order, target: Target) -> Waiting | None:
        """Keep an order for a person's word; None when one of its instrument waits already."""
        if order.instrument in self.waiting:
            return None
        self._tickets += 1
        ticket = f"{order.account}-ask-{self._account.starts}-{self._tickets}"
        kept = Waiting(ticket, order.instrument, order.quantity, order.ts + self.mode.confirm_within, target)
        self.waiting[order.instrument] = kept
        return kept

    def take_expired(self, now: Nanos) -> list[Waiting]:
        """The orders nobody approved in time; they wait no more."""
        if not self.waiting:
            return []
        found = [kept for kept in self.waiting.values() if now > kept.until]
        for kept in found:
            del self.waiting[kept.instrument]
        return found

    def take(self, ticket: str) -> Waiting | None:
        """The order that waits under a ticket; it waits no more."""
        for kept in self.waiting.values():
            if kept.ticket == ticket:
                return self.waiting.pop(kept.instrument)
        return None


def _own_units(account: Account, settings: GateSettings) -> Units:
    return Units(
        account.universe,
        account.marks,
        account.valuation,
        spots=settings.limits.stress_spots if settings.limits.any_of("max_stress_loss") else (),
        vols=settings.limits.stress_vols if settings.limits.any_of("max_stress_loss") else (),
        proxies=settings.proxies,
    )
