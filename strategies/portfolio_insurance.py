"""Portfolio insurance keeps a portfolio of one risky asset and cash above a floor by trading the asset against the cash.

Law: it buys as the price rises and sells as it falls, by one of four stated rules; it never looks at a price twice, and a
price it cannot trust (missing, one-sided, crossed, stale) is a decision not made, with the reason on the record.

    cppi           exposure = m (V - F), F the start's share growing at a rate        Black and Jones (1987), Perold (1986)
    tipp           the same, the floor ratcheted up with the best value               Estep and Kritzman (1988)
    synthetic_put  units = scale N(d1), scale = V0 / (S0 + P0), strike = floor x S0   Leland and Rubinstein (1981)
    obpi           the same as a share of the value: w = S N(d1) / (S + P)            Leland and Rubinstein (1981)

The account holds this portfolio and nothing else: the value is the account's equity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from bot.core.events import Alarm, Evidence, Target, TargetLine
from bot.core.ports import Figures, StrategyView
from bot.core.quiet import UNTIL_TIMER, QuietBox
from bot.core.sight import paid_so_far
from bot.domain.instruments import round_to_lot
from bot.domain.units import NEVER, NS_PER_DAY, NS_PER_YEAR, Nanos, Rate, Vol, Years, iso, span, utc_date, years_between
from bot.pricing import insurance

Method: TypeAlias = Literal["cppi", "tipp", "synthetic_put", "obpi"]
PUTS: Final = frozenset({"synthetic_put", "obpi"})
DAYS_PER_YEAR: Final = 365.0


class Jumps(msgspec.Struct, frozen=True, kw_only=True):
    """What is assumed of jumps for the gap-risk meter: `intensity` a year, log size normal(`mean`, `vol`)."""

    intensity: float = 0.5
    mean: float = -0.10
    vol: float = 0.15

    def __post_init__(self) -> None:
        if not (0.0 <= self.intensity < math.inf and math.isfinite(self.mean) and 0.0 <= self.vol < math.inf):
            raise ValueError(f"jumps: expected an intensity and vol of 0 or more and a finite mean, found {self}")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is insured since `begun`: the value and price it began at, and for the puts units, strike and end."""

    begun: Nanos
    value: float
    spot: float
    horizon: Nanos | None = None
    units: float = 0.0
    strike: float = 0.0


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """What happened so far, for the report: each number by its name, instants beside extremes; None is not known yet."""

    began: Nanos
    value0: float
    spot0: float
    value: float
    spot: float
    ts: Nanos
    looks: int = 1
    trades: int = 0
    traded: float = 0.0
    time_exposed: float = 0.0
    low: float
    low_ts: Nanos
    fall: float = 0.0
    fall_ts: Nanos = 0
    peak: float
    drawdown: float = 0.0
    breaks: int = 0
    under: float = 0.0
    under_ts: Nanos = 0
    nearest: float | None = None
    nearest_ts: Nanos = 0
    likeliest: float = 0.0
    squares: float = 0.0
    shown: float | None = None
    renewals: int = 0
    ideal: float | None = None


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """All that a restarted strategy needs: the plan, the floor and when it was set, the variance forecast, the score."""

    plan: Plan
    floor: float
    floor_ts: Nanos
    price: float
    price_ts: Nanos
    variance: float
    broken: bool
    score: Score


class Price(NamedTuple):
    """The asset's price and when it was received, or why there is none to act on."""

    value: float
    ts: Nanos
    fault: str = ""


class Standing(NamedTuple):
    """Where the portfolio stands at a look: money, except `wanted`, which is units before band and rounding."""

    value: float
    floor: float
    wanted: float
    why: str


class PortfolioInsurance:
    """One risky asset and cash above a floor. Implements `Strategy`, `Restores`, `Reports`."""

    def __init__(
        self,
        *,
        instrument: str,
        method: Method,
        floor: float,
        name: str = "portfolio_insurance",
        book: str = "main",
        multiplier: float = 3.0,
        floor_rate: Rate = 0.0,
        cap: float | None = None,
        band: float = 0.0,
        vol: Vol = 0.20,
        vol_from: Literal["fixed", "ewma"] = "fixed",
        vol_halflife: Nanos = 11 * NS_PER_DAY,
        rate: Rate = 0.0,
        dividend: Rate = 0.0,
        horizon: Nanos | None = None,
        length: Nanos | None = None,
        day_count: Literal["exact", "dates"] = "exact",
        every: Nanos | None = None,
        lot: Decimal | None = None,
        stale_after: Nanos | None = None,
        jumps: Jumps | Mapping[str, float] | None = None,
    ) -> None:
        self.name = name
        self.book = book
        self.method = method
        self._instrument = instrument
        self._share = floor
        self._m = multiplier
        self._floor_rate = floor_rate
        self._cap = cap if cap is not None else math.inf if method == "synthetic_put" else 1.0
        self._band = band
        self._vol = vol
        self._adapts = vol_from == "ewma"
        self._halflife = vol_halflife
        self._rate = rate
        self._dividend = dividend
        self._horizon = horizon
        self._length = length
        self._by_dates = day_count == "dates"
        self._every = every
        self._lot = lot
        self._stale_after = stale_after
        self._jumps = jumps if isinstance(jumps, Jumps) else msgspec.convert(dict(jumps or {}), Jumps)
        self._memory: Memory | None = None
        self._refuse_nonsense()

    def _refuse_nonsense(self) -> None:
        """ValueError for a rule that insures nothing."""
        who = f"portfolio_insurance {self.name!r}"
        if not 0.0 < self._share < math.inf or (self.method not in PUTS and self._share >= 1.0):
            raise ValueError(f"{who}: floor: expected a share of the start above 0 and below 1, found {self._share}")
        if not 0.0 < self._m < math.inf:
            raise ValueError(f"{who}: multiplier: expected a positive number, found {self._m}")
        if not self._cap > 0.0:
            raise ValueError(f"{who}: cap: expected a positive share of the value, found {self._cap}")
        if not 0.0 <= self._band < math.inf:
            raise ValueError(f"{who}: band: expected 0 or more, found {self._band}")
        if not 0.0 < self._vol < math.inf:
            raise ValueError(f"{who}: vol: expected a positive number, found {self._vol}")
        if self.method in PUTS and (self._horizon is None) == (self._length is None):
            found = "both" if self._horizon is not None else "neither"
            raise ValueError(f"{who}: method {self.method!r}: expected one of horizon and length, found {found}")

    # ------------------------------------------------------------------ the Strategy protocol

    def start(self, view: StrategyView) -> Sequence[Target]:
        """The opening exposure."""
        if self._every is not None:
            view.wake_at(view.now + self._every, "look")
        return self._look(view)

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """A price moved: look."""
        return self._look(view)

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """The interval has passed: look, and ask to be woken again."""
        if self._every is not None:
            view.wake_at(view.now + self._every, "look")
        return self._look(view)

    def stop(self, view: StrategyView) -> Sequence[Target]:
        """Nothing: the portfolio is kept, insurance is no hedge to be lifted."""
        return ()

    def quiet(self, view: StrategyView) -> QuietBox | None:
        """One that looks by the clock is never woken by prices."""
        return None if self._every is None else UNTIL_TIMER

    def watches(self) -> Sequence[str]:
        """The asset."""
        return (self._instrument,)

    def trades(self) -> Sequence[str]:
        """The asset."""
        return (self._instrument,)

    def unprotected(self, held: Mapping[str, float], worth: float, prices: Mapping[str, float]) -> Mapping[str, float]:
        """All of the account's worth in the asset."""
        price = prices.get(self._instrument, math.nan)
        return {self._instrument: worth / price} if price > 0.0 and worth > 0.0 else {}

    def follow(self, view: StrategyView, renamed: Mapping[str, str]) -> None:
        """Go on under the asset's new id."""
        self._instrument = renamed.get(self._instrument, self._instrument)

    def restore(self, view: StrategyView, memory: bytes) -> None:
        """Take over what was remembered."""
        self._memory = msgspec.json.decode(memory, type=Memory | None)

    # ------------------------------------------------------------------ a look

    def _look(self, view: StrategyView) -> Sequence[Target]:
        seen = self._price(view)
        if seen.fault:
            view.skip(self._instrument, seen.fault)
            return ()
        if self._memory is not None and seen.ts <= self._memory.price_ts:
            return ()  # nothing was said since: a price is acted on once
        worth = view.equity()
        if worth is None:
            view.skip(self._instrument, "the account's worth is not known: a mark is missing")
            return ()
        value = float(worth)
        if self._memory is None:
            if value <= 0.0:
                view.skip(self._instrument, f"nothing to insure: the account is worth {value:g}")
                return ()
            self._memory = self._begin(view.now, value, seen)
        else:
            self._memory = self._observe(view, self._memory, value, seen)
        targets = self._decide(view, self._memory, value, seen)
        self._remember(view)
        return targets

    def _price(self, view: StrategyView) -> Price:
        """The middle of a good quote, or the last print of an asset that nobody quotes."""
        k = view.universe.index(self._instrument)
        market = view.market
        quoted = market.quote_ts(k)
        value, ts = (market.mid(k), quoted) if quoted != NEVER else (market.last(k), market.last_ts(k))
        if not value > 0.0:  # a withdrawn or crossed quote is NaN here
            return Price(math.nan, NEVER, f"no two-sided price of {self._instrument}")
        if self._stale_after is not None and view.now - ts > self._stale_after:
            return Price(math.nan, NEVER, f"the price of {self._instrument} is older than {span(self._stale_after)}")
        return Price(value, ts)

    def _begin(self, now: Nanos, value: float, seen: Price) -> Memory:
        plan = self._new_plan(now, value, seen.value)
        return Memory(
            plan=plan,
            floor=self._share * value,
            floor_ts=now,
            price=seen.value,
            price_ts=seen.ts,
            variance=self._vol * self._vol,
            broken=False,
            score=Score(
                began=now, value0=value, spot0=seen.value, value=value, spot=seen.value, ts=now, low=value, low_ts=now,
                peak=value,
            ),
        )  # fmt: skip

    def _new_plan(self, now: Nanos, value: float, spot: float) -> Plan:
        if self.method not in PUTS:
            return Plan(begun=now, value=value, spot=spot)
        end = self._horizon if self._horizon is not None else now + (self._length or 0)
        strike = self._share * spot
        tau = self._tau(now, end)
        units = float(insurance.insured_units(value, spot, strike, tau, vol=self._vol, rate=self._rate,
                                              dividend=self._dividend))  # fmt: skip
        return Plan(begun=now, value=value, spot=spot, horizon=end, units=units, strike=strike)

    def _tau(self, now: Nanos, end: Nanos) -> Years:
        """Years to the end: exact, or by calendar dates; both of 365 days."""
        if self._by_dates:
            return (utc_date(end) - utc_date(now)).days / DAYS_PER_YEAR
        return years_between(now, end)

    def _observe(self, view: StrategyView, m: Memory, value: float, seen: Price) -> Memory:
        """What a new price makes of floor, forecast and score."""
        now, score = view.now, m.score
        years = (seen.ts - m.price_ts) / NS_PER_YEAR
        move = math.log(seen.value / m.price)
        weight = 0.5 ** ((seen.ts - m.price_ts) / self._halflife)
        variance = weight * m.variance + (1.0 - weight) * move * move / years
        floor, floor_ts = m.floor, m.floor_ts
        if self.method == "tipp":
            floor = float(insurance.ratchet(self._grown(m, now), value, share=self._share))
            floor_ts = now
        exposed = float(view.held(self._instrument)) != 0.0
        fall = score.value - value
        peak = max(score.peak, value)
        score = msgspec.structs.replace(
            score,
            value=value,
            spot=seen.value,
            ts=now,
            looks=score.looks + 1,
            time_exposed=score.time_exposed + (years if exposed else 0.0),
            low=min(score.low, value),
            low_ts=now if value < score.low else score.low_ts,
            fall=max(score.fall, fall),
            fall_ts=now if fall > score.fall else score.fall_ts,
            peak=peak,
            drawdown=max(score.drawdown, peak - value),
            squares=score.squares + move * move,
        )
        plan = m.plan
        if plan.horizon is not None and now >= plan.horizon:
            if score.ideal is None or self._length is not None:
                score = msgspec.structs.replace(score, ideal=plan.units * max(seen.value, plan.strike))
            if self._length is not None and value > 0.0:
                plan = self._new_plan(now, value, seen.value)
                score = msgspec.structs.replace(score, renewals=score.renewals + 1)
        return Memory(
            plan=plan, floor=floor, floor_ts=floor_ts, price=seen.value, price_ts=seen.ts, variance=variance,
            broken=m.broken, score=score,
        )  # fmt: skip

    def _grown(self, m: Memory, now: Nanos) -> float:
        return m.floor * math.exp(self._floor_rate * years_between(m.floor_ts, now))

    def _vol_now(self, m: Memory) -> Vol:
        return math.sqrt(m.variance) if self._adapts else self._vol

    def standing(self, m: Memory, now: Nanos, value: float, spot: float, per_unit: float = 1.0) -> Standing:
        """Where a portfolio stands and how many units of the asset its rule wants, before band and rounding."""
        if self.method in PUTS:
            return self._put_standing(m, now, value, spot, per_unit)
        floor = self._grown(m, now)
        money = float(insurance.cppi_exposure(value, floor, multiplier=self._m, cap=self._cap))
        why = f"{self.method}: {self._m:g} x the cushion of {value - floor:.2f} above the floor of {floor:.2f}"
        if money < self._m * max(value - floor, 0.0):
            why += f", capped at {self._cap:g} of the value"
        return Standing(value, floor, money / (spot * per_unit), why)

    def _put_standing(self, m: Memory, now: Nanos, value: float, spot: float, per_unit: float) -> Standing:
        plan = m.plan
        assert plan.horizon is not None  # given with the plan of every put
        tau = self._tau(now, plan.horizon)
        floor = plan.units * plan.strike * math.exp(-self._rate * max(tau, 0.0))
        if tau <= 0.0:
            return Standing(value, floor, math.nan, f"{self.method}: the horizon of {iso(plan.horizon)} has come")
        vol, r, q = self._vol_now(m), self._rate, self._dividend
        if self.method == "obpi":
            weight = float(insurance.obpi_weight(spot, plan.strike, tau, vol=vol, rate=r, dividend=q))
            money = max(min(weight, self._cap), 0.0) * max(value, 0.0)
            why = f"obpi: {weight:.4f} of the value of {value:.2f}, for a floor of {plan.strike:.2f} a unit"
        else:
            delta = float(insurance.synthetic_put_delta(spot, plan.strike, tau, vol=vol, rate=r, dividend=q))
            money = min(plan.units * delta * spot, self._cap * max(value, 0.0)) if self._cap < math.inf else (
                plan.units * delta * spot
            )  # fmt: skip
            why = f"synthetic_put: {delta:.4f} of {plan.units:.4f} insured units, strike {plan.strike:.2f}"
        return Standing(value, floor, money / (spot * per_unit), why + f", vol {vol:.4f}, {tau:.4f} years left")

    def _decide(self, view: StrategyView, m: Memory, value: float, seen: Price) -> Sequence[Target]:
        instrument = view.universe.get(self._instrument)
        per_unit = float(instrument.multiplier)
        stands = self.standing(m, view.now, value, seen.value, per_unit)
        held = view.exposure(self._instrument)
        quantity = self._quantity(view, stands, held)
        self._meter(view, stands, (held if quantity is None else float(quantity)) * seen.value * per_unit, m)
        if quantity is None:
            return ()
        self._count_trade(view, float(quantity) - held, seen.value * per_unit)
        return (self._target(view, stands, quantity, seen.value),)

    def _quantity(self, view: StrategyView, stands: Standing, held: float) -> Decimal | None:
        """What to hold in whole lots; None when what is held stays."""
        if math.isnan(stands.wanted):
            return None
        _, trades = insurance.band_target(held, stands.wanted, band=self._band)
        own = view.universe.get(self._instrument).lot
        lot = self._lot if self._lot is not None else own if own is not None else Decimal(1)
        quantity = round_to_lot(stands.wanted, lot)
        if not bool(trades) or float(quantity) == held:
            return None
        if not view.is_open(self._instrument):
            view.skip(self._instrument, f"the session of {self._instrument} is closed")
            return None
        return quantity

    def _target(self, view: StrategyView, stands: Standing, quantity: Decimal, spot: float) -> Target:
        wanted = stands.wanted
        evidence = Evidence(
            underlying=self._instrument,
            spot=spot,
            lo=wanted / (1.0 + self._band),
            hi=wanted / (1.0 - self._band) if self._band < 1.0 else None,
            held=view.held(self._instrument),
            working=view.working(self._instrument),
            policy=self.method,
        )
        line = TargetLine(self._instrument, quantity, wanted)
        return Target(book=self.book, lines=(line,), reason=f"{stands.why}: hold {quantity}", evidence=evidence)

    def _count_trade(self, view: StrategyView, units: float, price: float) -> None:
        """Note a trade that is asked for, and how much of it the market displays."""
        assert self._memory is not None  # a look made it
        k = view.universe.index(self._instrument)
        size = view.market.ask_size(k) if units > 0.0 else view.market.bid_size(k)
        score = self._memory.score
        shown = None if math.isnan(size) else size / abs(units)  # NaN: the venue does not say
        self._memory = msgspec.structs.replace(
            self._memory,
            score=msgspec.structs.replace(
                score,
                trades=score.trades + 1,
                traded=score.traded + abs(units) * price,
                shown=_least(score.shown, shown),
            ),
        )

    # ------------------------------------------------------------------ gap risk

    def _meter(self, view: StrategyView, stands: Standing, exposure: float, m: Memory) -> None:
        """The gauges of this look; a floor that broke is an alarm, once until the value is above it again."""
        cushion = stands.value - stands.floor
        fall = float(insurance.breaking_fall(cushion, exposure))
        day = 1.0 / DAYS_PER_YEAR
        vol = math.sqrt(m.variance)
        chance = float(insurance.gap_probability(fall, vol=vol, dt=day))
        j = self._jumps
        jump = float(
            insurance.jump_gap_probability(fall, intensity=j.intensity, jump_mean=j.mean, jump_vol=j.vol, dt=1.0)
        )
        for name, number in (
            ("value", stands.value),
            ("floor", stands.floor),
            ("cushion", cushion),
            ("exposure", exposure),
            ("breaking_fall", fall if math.isfinite(fall) else math.nan),
            ("gap_chance_day", chance),
            ("jump_chance_year", jump),
            ("vol_forecast", vol),
        ):
            view.gauge(name, number)
        self._note_gap(view, stands, fall, chance if cushion > 0.0 else 0.0)

    def _note_gap(self, view: StrategyView, stands: Standing, fall: float, chance: float) -> None:
        assert self._memory is not None  # a look made it
        m, cushion = self._memory, stands.value - stands.floor
        score = m.score
        tolerance = 1e-9 * max(abs(stands.floor), 1.0)
        broke = cushion < -tolerance
        if broke and not m.broken and self.method not in PUTS:
            text = f"{self.name}: the value of {stands.value:.2f} fell {-cushion:.2f} below the floor of {stands.floor:.2f}"
            view.alarm(Alarm(code="floor_broken", text=text, ts=view.now, underlying=self._instrument))
        under = max(-cushion, 0.0) if broke else 0.0
        reached = fall if math.isfinite(fall) else None
        self._memory = msgspec.structs.replace(
            m,
            broken=broke,
            score=msgspec.structs.replace(
                score,
                breaks=score.breaks + (1 if broke and not m.broken else 0),
                under=max(score.under, under),
                under_ts=view.now if under > score.under else score.under_ts,
                nearest=_least(score.nearest, reached),
                nearest_ts=view.now if _least(score.nearest, reached) != score.nearest else score.nearest_ts,
                likeliest=max(score.likeliest, chance),
            ),
        )

    def _remember(self, view: StrategyView) -> None:
        assert self._memory is not None  # a look made it
        view.memory(self.name, self._memory)

    # ------------------------------------------------------------------ the report

    def figures(self, view: StrategyView) -> Figures:
        """Outcome, insurance, gap risk and trading, each a table."""
        m = self._memory
        if m is None:
            return {}
        worth, seen = view.equity(), self._price(view)
        if worth is not None and not seen.fault and seen.ts > m.price_ts:
            m = self._observe(view, m, float(worth), seen)  # the run went on after the last look
        score = m.score
        value = score.value if worth is None else float(worth)
        paid = paid_so_far(view)
        return {
            "Outcome": self._outcome(score, value),
            "Insurance": self._insured(m, view.now, value),
            "Gap risk": _gap_figures(score),
            "Trading": _trading_figures(score, paid),
        }

    def _outcome(self, score: Score, value: float) -> dict[str, float | str | None]:
        alone = score.value0 * score.spot / score.spot0
        gain = alone - score.value0
        return {
            "value at the start": score.value0,
            "value at the end": value,
            "the asset alone": alone,
            "upside given up": max(alone - value, 0.0),
            "loss avoided": max(value - alone, 0.0),
            "share of the asset's gain kept": (value - score.value0) / gain if gain > 0.0 else None,
            "lowest value": score.low,
            "lowest value at": _day(score.low_ts),
            "worst step": -score.fall,
            "worst step at": _day(score.fall_ts),
            "largest drawdown": score.drawdown,
        }

    def _insured(self, m: Memory, now: Nanos, value: float) -> dict[str, float | str | None]:
        stands = self.standing(m, now, value, m.score.spot)
        rows: dict[str, float | str | None] = {"method": self.method, "floor": stands.floor}
        if self.method in PUTS:
            ideal = m.score.ideal
            if ideal is None:  # the horizon is still to come: what stock and put are worth by the model
                ideal = self._model_value(m, now)
            rows |= {
                "insured units": m.plan.units,
                "strike": m.plan.strike,
                "insured value": ideal,
                "shortfall": ideal - value,
                "renewals": float(m.score.renewals),
                "vol assumed": self._vol,
            }
        else:
            rows |= {"multiplier": self._m, "cap": self._cap, "shortfall": max(stands.floor - value, 0.0)}
        years = years_between(m.score.began, m.score.ts)
        rows["vol realised"] = math.sqrt(m.score.squares / years) if years > 0.0 else None
        return rows

    def _model_value(self, m: Memory, now: Nanos) -> float:
        plan = m.plan
        assert plan.horizon is not None  # given with the plan of every put
        tau = max(self._tau(now, plan.horizon), 0.0)
        one = insurance.insured_units(1.0, m.score.spot, plan.strike, tau, vol=self._vol_now(m), rate=self._rate,
                                      dividend=self._dividend)  # fmt: skip
        return plan.units / float(one)


def _least(known: float | None, new: float | None) -> float | None:
    return known if new is None else new if known is None else min(known, new)


def _day(ts: Nanos) -> str | None:
    return iso(ts)[:10] if ts else None


def _gap_figures(score: Score) -> dict[str, float | str | None]:
    return {
        "times the floor broke": float(score.breaks),
        "deepest below the floor": score.under,
        "deepest at": _day(score.under_ts),
        "least fall that would break it": score.nearest,
        "least fall at": _day(score.nearest_ts),
        "greatest chance of a day by the vol forecast": score.likeliest,
    }


def _trading_figures(score: Score, paid: Mapping[str, float]) -> dict[str, float | str | None]:
    years = years_between(score.began, score.ts)
    rows: dict[str, float | str | None] = {
        "looks": float(score.looks),
        "trades": float(score.trades),
        "trades a year": score.trades / years if years > 0.0 else None,
        "money traded": score.traded,
        "turnover a year": score.traded / score.value0 / years if years > 0.0 else None,
        "least displayed size over need": score.shown,
    }
    rows |= {name: paid[name] for name in ("spread", "commission", "impact", "delay", "interest") if name in paid}
    return rows
