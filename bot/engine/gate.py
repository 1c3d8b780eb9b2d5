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
from bot.domain.orders import Order, Refusal
from bot.domain.units import NEVER, NS_PER_DAY, NS_PER_MINUTE, Nanos, iso
from bot.engine import kill, limits
from bot.engine.carried import SLACK, AccountRisk, Carried, Effect, Range
from bot.engine.exposure import Proxy, Units
from bot.engine.journal import Controlled
from bot.engine.kill import KillState, Rung
from bot.engine.limits import Bucket, Limit, LimitSettings, LimitView, refuse

if TYPE_CHECKING:
    from bot.core.events import Target
    from bot.engine.account import Account

ZERO: Final = Decimal(0)
NAN: Final = math.nan
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


class _Line:
    """What the quick look knows of an instrument without curvature beforehand."""

    __slots__ = ("bound", "column", "delta", "multiplier", "position", "underlying")

    def __init__(self, column: int, multiplier: float, delta: float, underlying: str) -> None:
        self.column = column
        self.multiplier = multiplier
        self.delta = delta
        self.underlying = underlying
        self.position = math.inf
        self.bound = math.inf


class _Most(NamedTuple):
    """The common bounds in floats, a hair inside: what lies nearer is for the exact checks."""

    quantity: float
    notional: float
    collar: float
    age: int
    open_orders: float


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
        self.risk = AccountRisk(account, self.units)
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
        self._view: LimitView | None = None
        self._effect: Effect | None = None
        self._lines: dict[str, _Line | None] = {}
        self._lines_seen = -1
        self._orders: Bucket | None = None
        self._cancels: Bucket | None = None
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
        plain = all(code in {"frozen", "restricted"} for code, _ in self.checks) and not bounds.restricted
        self._is_bare = plain and {code for code, _ in self.stateful} <= {"throttled", "self_cross"}
        self._watches_loss = bounds.daily_loss is not None or bounds.drawdown is not None
        self.risk.limit(bounds)
        ages = [bounds.stale_after] if bounds.stale_after is not None else []
        if bounds.price_collar is not None:
            ages.append(bounds.reference_max_age)
        self._most = _Most(
            quantity=_inside(bounds.max_order_quantity),
            notional=_inside(bounds.max_order_notional),
            collar=_inside(bounds.price_collar),
            age=min(ages, default=1 << 62),
            open_orders=_inside(bounds.max_open_orders, share=0.0),
        )
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
            if rung < Rung.NO_NEW_RISK and not flattens and self._is_clear(order):
                return None
            return self._ask(order, rung, flattens)
        except Exception as fault:  # noqa: BLE001  whatever a check stumbles over, the order stays here
            return refuse(order, "gate_fault", f"a check raised {type(fault).__name__}: {fault}")

    def _is_clear(self, order: Order) -> bool:
        """A quick look: True only when every check would pass an order without curvature; False says nothing."""
        account = self._account
        if account.halted or account.frozen or self.standing.throttled or self._given:
            return False
        if self._is_bare and not account.open_ids:
            return True
        key, risk = order.instrument, self.risk
        risk.look()
        line = self._lines.get(key)
        if line is None or self._lines_seen != risk.reads:
            line = self._line(key)
            if line is None:
                return False
        q, ts = float(order.quantity), order.ts
        k, marks, most = line.column, account.marks, self._most
        bid, ask = marks.bids[k], marks.asks[k]
        if not (bid <= ask and -most.quantity <= q <= most.quantity and ts - marks.quote_times[k] <= most.age):
            return False
        price = 0.5 * (bid + ask)
        limit = order.limit
        away = ask - price if limit is None else float(limit) - price
        if not (
            -most.collar * price <= away <= most.collar * price and abs(q) * line.multiplier * price <= most.notional
        ):
            return False
        if len(account.open_ids) >= most.open_orders:
            return False
        held = float(account.ledger.book.quantity(key))
        found = risk.open.get(key)
        if found is None:
            low = high = held
        else:
            if found.unanswered or (found.best_sell if q > 0 else found.best_buy) is not None:
                return False
            low, high = held + float(found.low), held + float(found.high)
        if not (high + q <= line.position if q > 0 else low + q >= -line.position):
            return False
        if self._orders is not None and not self._orders.is_full_enough():
            return False
        if key in self._cool:
            return False
        if not self._weighs:
            return True
        c = risk.carried_as_seen(line.underlying, ts)
        spot = (
            price
            if key == line.underlying and c.slice is not None and c.slice.from_quotes
            else self.units.price(line.underlying)
        )
        delta = q * line.delta
        net = c.linear + c.delta + (c.gamma * (spot - c.spot) if c.gamma else 0.0)
        if delta > 0.0:
            if not (net + c.open_delta.high + delta <= line.bound):
                return False
        elif not (net + c.open_delta.low + delta >= -line.bound):
            return False
        return _is_in_room(c, delta)

    def _line(self, key: str) -> _Line | None:
        """What the quick look needs of an instrument, None where every check has to look for itself."""
        account, bounds = self._account, self.limits
        if self._lines_seen != self.risk.reads:
            self._lines.clear()
            self._lines_seen = self.risk.reads
        if key in self._lines:
            return self._lines[key]
        item = account.universe.get(key)
        odd = isinstance(item, OptionContract | ConvertibleBond) or getattr(item, "inverse", False)
        if odd or key in self.units.proxies or key in bounds.restricted:
            self._lines[key] = None
            return None
        u = self.risk.underlying_of(key)
        line = _Line(account.universe.index(key), float(item.multiplier), float(item.multiplier), u)
        table = getattr(item, "underlying", None) or key
        position = bounds.of("max_position", table)
        line.position = math.inf if position is None else float(position) * (1.0 - SLACK)
        line.bound = min(math.inf if (b := bounds.of(name, u)) is None else b for name in ("max_delta", "hedge_band"))
        self._lines[key] = line
        return line

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
        self._effect = None
        view = self._see(order)
        if flattens:
            return limits.refuse_frozen(order, view) or self._listed(order, view)
        if rung >= Rung.NO_NEW_RISK:
            refusal = self._killed(order, view, rung)
            if refusal is not None:
                return refusal
        if self._weighs:
            self._effect = self.risk.effect(order, view.instrument, order.ts)
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
        self.risk.read_orders()
        found = self.risk.open.get(key)
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
        view.open_orders = len(account.open_ids)
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

    # ------------------------------------------------------------------ rungs

    def _killed(self, order: Order, view: LimitView, rung: Rung) -> Refusal | None:
        """On the two middle rungs only what lowers a risk leaves; for a position no model is asked."""
        if rung < Rung.HEDGE_ONLY and limits.reduces(order, view):
            return None
        if isinstance(view.instrument, OptionContract | ConvertibleBond):
            return refuse(order, "kill", self.kill.words)
        effect = self.risk.effect(order, view.instrument, order.ts)
        if self._lowers_delta(effect, order, view.instrument):
            return None
        return refuse(order, "kill", self.kill.words)

    def _lowers_delta(self, e: Effect, order: Order, instrument: Instrument) -> bool:
        """True when the net delta comes nearer to zero whatever becomes of open orders, past zero by half a lot at most."""
        lot = 0.0 if instrument.lot is None else float(instrument.lot)
        half = 0.5 * abs(e.delta) * lot / abs(float(order.quantity))
        past = max(half, self._band_of(e.carried.underlying)) * (1.0 + SLACK)
        low, high = e.carried.net(e.spot)
        if e.delta > 0:
            return high < 0 and high + e.delta <= min(-high, past)
        return low > 0 and low + e.delta >= -min(low, past)

    def _band_of(self, underlying: str) -> float:
        found = self.limits.of("hedge_band", underlying)
        return 0.0 if found is None else float(found)

    # ------------------------------------------------------------------ risk by underlying

    def net_delta(self, underlying: str, now: Nanos) -> Range:
        """The account's net delta on an underlying with open orders both ways, in underlying units; NaN while unknown."""
        return self.risk.carried(underlying, now).net(self.units.price(underlying))

    def _is_exempt(self, order: Order, view: LimitView) -> bool:
        """Closing orders that only reduce a position bring a hedge home; no limit of risk keeps it out."""
        return order.closing and limits.reduces(order, view)

    def _delta(self, order: Order, view: LimitView) -> Refusal | None:
        e = self._effect
        assert e is not None  # weighed whenever a bound of risk is set
        bound = self.limits.of("max_delta", e.carried.underlying)
        if bound is None:
            return None
        return self._side(order, view, ("delta", "max_delta"), e.carried.net(e.spot), e.delta, bound)

    def _hedge(self, order: Order, view: LimitView) -> Refusal | None:
        """A hedge may always lower |delta|; it never raises it past the band."""
        e = self._effect
        assert e is not None  # weighed whenever a bound of risk is set
        band = self.limits.of("hedge_band", e.carried.underlying)
        if band is None or e.unit is not None:
            return None
        return self._side(order, view, ("hedge_direction", "hedge_band"), e.carried.net(e.spot), e.delta, band)

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
            e = self._effect
            where = "" if e is None else e.carried.underlying
            return refuse(order, code, f"the {code} of {where} is not known, {name} is {bound:g}")
        return refuse(order, code, f"net {code} of {after:,.4g} would exceed {name} {bound:g}")

    def _gamma(self, order: Order, view: LimitView) -> Refusal | None:
        e = self._effect
        assert e is not None  # weighed whenever a bound of risk is set
        bound = self.limits.of("max_gamma", e.carried.underlying)
        if bound is None or e.unit is None:  # only contracts with curvature add any
            return None
        c = e.carried
        now = Range(c.gamma + c.open_gamma.low, c.gamma + c.open_gamma.high)
        return self._side(order, view, ("gamma", "max_gamma"), now, float(order.quantity) * e.unit.gamma, bound)

    def _vega(self, order: Order, view: LimitView) -> Refusal | None:
        e = self._effect
        assert e is not None  # weighed whenever a bound of risk is set
        bound = self.limits.of("max_vega", e.carried.underlying)
        if bound is None or e.unit is None:
            return None
        c = e.carried
        now = Range(c.vega + c.open_vega.low, c.vega + c.open_vega.high)
        return self._side(order, view, ("vega", "max_vega"), now, float(order.quantity) * e.unit.vega, bound)

    def _stress(self, order: Order, view: LimitView) -> Refusal | None:
        """No shock of the grid may lose more than the bound, unless the order lowers the greatest loss."""
        e = self._effect
        assert e is not None  # weighed whenever a bound of risk is set
        u = e.carried.underlying
        bound = self.limits.of("max_stress_loss", u)
        if bound is None or (e.unit is None and _is_in_room(e.carried, e.delta)):
            return None
        before, after = self.risk.losses(e, float(order.quantity))
        if after >= -bound * (1.0 + SLACK) or after >= before or self._is_exempt(order, view):
            return None
        if math.isnan(after):
            return refuse(order, "stress", f"the stress loss of {u} is not known, max_stress_loss is {bound:g}")
        return refuse(order, "stress", f"stress loss of {-after:,.2f} on {u} would exceed max_stress_loss {bound:g}")

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
        found = self.risk.open.get(order.instrument)
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
        found = self.risk.open.get(order.instrument)
        window = self.limits.duplicate_window
        if found is None or not found.unanswered or window is None:
            return None
        for quantity, ts in found.unanswered:
            if quantity == order.quantity and order.ts - ts <= window:
                text = f"an order of {quantity} {order.instrument} is unanswered since {iso(ts)}"
                return refuse(order, "duplicate", text)
        return None

    def _capped(self, order: Order, view: LimitView) -> Refusal | None:
        key = order.instrument
        until = self._cool.get(key)
        if until is None:
            return None
        if order.ts >= until:
            del self._cool[key]
            return None
        text = f"{key} cools down until {iso(until)} after {self.limits.max_attempts} orders in a row"
        return refuse(order, "attempts", text)

    def _rate(self, order: Order, view: LimitView) -> Refusal | None:
        if self._orders is None or self._orders.has(order.ts):
            return None
        return refuse(order, "order_rate", f"more than {self.limits.orders_per_second:g} orders a second")

    def note_sent(self, order: Order) -> None:
        """An order left: it counts against rates and caps."""
        if self._orders is not None:
            self._orders.take(order.ts)
        most = self.limits.max_attempts
        if most is None:
            return
        sent = self._attempts.setdefault(order.instrument, deque())
        sent.append(order.ts)
        while order.ts - sent[0] > self.limits.attempt_window:
            sent.popleft()
        if len(sent) >= most:
            self._cool[order.instrument] = order.ts + self.limits.cool_down
            sent.clear()

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


def _inside(bound: Decimal | float | None, share: float = SLACK) -> float:
    return math.inf if bound is None else float(bound) * (1.0 - share)


def _is_in_room(c: Carried, delta: float) -> bool:
    """True when the linear delta stays where no shock loses too much: a straight line, so its room is an interval."""
    if c.curved_open:
        return False
    low, high = c.linear + c.open_delta.low, c.linear + c.open_delta.high
    return c.most_short <= low + min(delta, 0.0) and high + max(delta, 0.0) <= c.most_long


def _own_units(account: Account, settings: GateSettings) -> Units:
    return Units(
        account.universe,
        account.marks,
        account.valuation,
        spots=settings.limits.stress_spots if settings.limits.any_of("max_stress_loss") else (),
        vols=settings.limits.stress_vols if settings.limits.any_of("max_stress_loss") else (),
        proxies=settings.proxies,
    )
