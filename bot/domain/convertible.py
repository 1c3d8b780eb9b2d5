"""A convertible's terms are what its indenture says of coupons, conversion, calls and puts; law: dated, ascending, finite.

Times are years (ACT/365) from one reference instant, the same for every date of a bond; valuation happens `at` a time on
that axis. Amounts are in currency per bond, ratios in shares per bond.

What happens at one instant t, in order: the coupon due at t is paid, then holder and issuer decide (put, convert, call).
A window [start, end] holds its two ends. Inside it, and up to and with its end, decisions may also be taken just before
the coupon of that instant, when it is still accrued; at `start`, and where start equals end, only after it.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from bot.domain.units import Rate, Vol, Years

SAME_INSTANT = 1e-9
"""Times closer than this many years (0.03 seconds) are one instant."""


class Call(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A window in which the issuer may redeem at `price`; the holder may answer by converting. No notice period.

    `clean`: accrued interest is paid on top; otherwise `price` is all that is paid. `trigger`: a soft call, only where
    parity (ratio times spot) is at least this multiple of face (1.3 is "130 % of the conversion price"); 0: a hard call.
    """

    start: Years
    end: Years
    price: float
    clean: bool = True
    trigger: float = 0.0

    def __post_init__(self) -> None:
        _check_window("call", self.start, self.end, self.price)
        if not (math.isfinite(self.trigger) and self.trigger >= 0.0):
            raise ValueError(f"call from {self.start}: trigger: expected a multiple of face >= 0, found {self.trigger}")


class Put(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A window, or one date where start equals end, in which the holder may sell to the issuer at `price`."""

    start: Years
    end: Years
    price: float
    clean: bool = True

    def __post_init__(self) -> None:
        _check_window("put", self.start, self.end, self.price)


class ConvertibleTerms(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The terms of one bond. Law: every date ascending, finite and not after maturity; calls do not overlap.

    `ratio` holds from the start, `ratio_changes` (time, ratio from then on) replace it; 0 is a bond nobody converts.
    Conversion is open from `convertible_from` to `convertible_to` (None: no limit; both at maturity: only then) and
    gives up accrued interest. At maturity the holder gets `redemption` (None: face), or converts; the last coupon is
    paid to either if `converter_keeps_coupon`, else only to who does not convert.
    """

    maturity: Years
    ratio: float
    face: float = 100.0
    redemption: float | None = None
    coupons: tuple[tuple[Years, float], ...] = ()
    accrual_from: Years = 0.0
    calls: tuple[Call, ...] = ()
    puts: tuple[Put, ...] = ()
    convertible_from: Years | None = None
    convertible_to: Years | None = None
    ratio_changes: tuple[tuple[Years, float], ...] = ()
    converter_keeps_coupon: bool = True

    def __post_init__(self) -> None:
        for name in ("maturity", "accrual_from"):
            _check_finite(name, getattr(self, name))
        if not (math.isfinite(self.face) and self.face > 0.0):
            raise ValueError(f"convertible: face: expected a positive number, found {self.face}")
        if self.redemption is not None and not (math.isfinite(self.redemption) and self.redemption >= 0.0):
            raise ValueError(f"convertible: redemption: expected a number >= 0 or none, found {self.redemption}")
        if not (math.isfinite(self.ratio) and self.ratio >= 0.0):
            raise ValueError(f"convertible: ratio: expected shares per bond >= 0, found {self.ratio}")
        self._check_pairs("coupons", self.coupons)
        self._check_pairs("ratio_changes", self.ratio_changes)
        if self.coupons and not self.accrual_from < self.coupons[0][0]:
            raise ValueError(
                f"convertible: accrual_from: expected before the first coupon at {self.coupons[0][0]}, "
                f"found {self.accrual_from}"
            )
        for name in ("convertible_from", "convertible_to"):
            value = getattr(self, name)
            if value is not None:
                _check_finite(name, value)
        begin, finish = self.conversion_window
        if not begin <= finish <= self.maturity + SAME_INSTANT:
            raise ValueError(
                f"convertible: conversion window: expected from <= to <= maturity {self.maturity}, "
                f"found {begin} to {finish}"
            )
        self._check_calls()
        for put in self.puts:
            if put.end > self.maturity + SAME_INSTANT:
                raise ValueError(f"convertible: put: expected an end by maturity {self.maturity}, found {put.end}")

    def _check_pairs(self, name: str, pairs: tuple[tuple[Years, float], ...]) -> None:
        before = -math.inf
        for time, amount in pairs:
            if not (math.isfinite(time) and math.isfinite(amount) and amount >= 0.0):
                raise ValueError(f"convertible: {name}: expected (years, number >= 0), found {(time, amount)}")
            if not before + SAME_INSTANT < time <= self.maturity + SAME_INSTANT:
                raise ValueError(
                    f"convertible: {name}: expected ascending times up to maturity {self.maturity}, "
                    f"found {time} after {before}"
                )
            before = time

    def _check_calls(self) -> None:
        before = -math.inf
        for call in self.calls:
            if call.end > self.maturity + SAME_INSTANT:
                raise ValueError(f"convertible: call: expected an end by maturity {self.maturity}, found {call.end}")
            if call.start < before - SAME_INSTANT:
                raise ValueError(
                    f"convertible: calls: expected windows in order without overlap, found a start at {call.start} "
                    f"before an end at {before}"
                )
            before = call.end

    @property
    def conversion_window(self) -> tuple[Years, Years]:
        """First and last instant of conversion; (-inf, maturity) when nothing is said."""
        begin = -math.inf if self.convertible_from is None else self.convertible_from
        return begin, self.maturity if self.convertible_to is None else self.convertible_to

    @property
    def redeemed(self) -> float:
        """What is paid at maturity beside the last coupon."""
        return self.face if self.redemption is None else self.redemption

    def ratio_at(self, time: Years) -> float:
        """Shares per bond from `time` on, whether or not conversion is open."""
        ratio = self.ratio
        for when, new in self.ratio_changes:
            if when <= time + SAME_INSTANT:
                ratio = new
        return ratio

    def coupon_at(self, time: Years) -> float:
        """The coupon paid at the instant `time`, 0 when none is."""
        return sum(amount for when, amount in self.coupons if abs(when - time) <= SAME_INSTANT)

    def accrued(self, time: Years) -> float:
        """Interest earned since the last coupon, linear in time; 0 just after one is paid.

        >>> ConvertibleTerms(maturity=1.0, ratio=1.0, coupons=((0.5, 4.0), (1.0, 4.0))).accrued(0.625)
        1.0
        """
        start = self.accrual_from
        for when, amount in self.coupons:
            if time < when - SAME_INSTANT:
                return max(amount * (time - start) / (when - start), 0.0)
            start = when
        return 0.0

    def accrual_rate(self, time: Years) -> float:
        """Interest earned per year just after `time`."""
        start = self.accrual_from
        for when, amount in self.coupons:
            if time < when - SAME_INSTANT:
                return amount / (when - start) if time >= start - SAME_INSTANT else 0.0
            start = when
        return 0.0


class ConvertibleModel(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a pricer is told where the market does not say: vol, rates and credit of one bond. All per year, continuous.

    `model`: "afv" (Ayache, Forsyth and Vetzal 2003) or "tf" (Tsiveriotis and Fernandes 1998). Give `spread` or `hazard`,
    or neither for a bond that cannot default; `hazard_spot` is where the hazard was given when it moves with the spot.
    """

    vol: Vol
    rate: Rate = 0.0
    dividend: Rate = 0.0
    borrow: Rate = 0.0
    spread: float | None = None
    hazard: float | None = None
    elasticity: float = 0.0
    hazard_spot: float | None = None
    recovery: float = 0.0
    equity_drop: float = 0.0
    model: Literal["tf", "afv"] = "afv"

    def __post_init__(self) -> None:
        self._check_bounds()
        if self.spread is not None and self.hazard is not None:
            raise ValueError("convertible model: expected a spread or a hazard, found both")
        if self.elasticity and not (self.hazard_spot is not None and self.hazard_spot > 0.0):
            raise ValueError("convertible model: elasticity: expected hazard_spot beside it, found none above 0")
        if self.model == "afv" and self.spread and self.recovery >= 1.0:
            raise ValueError("convertible model: recovery: expected below 1 beside a spread, found 1")

    def _check_bounds(self) -> None:
        bounds = {
            "vol": (0.0, math.inf),
            "rate": (-math.inf, math.inf),
            "dividend": (-math.inf, math.inf),
            "borrow": (-math.inf, math.inf),
            "spread": (0.0, math.inf),
            "hazard": (0.0, math.inf),
            "elasticity": (-math.inf, 0.0),
            "recovery": (0.0, 1.0),
            "equity_drop": (0.0, 1.0),
        }
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and least <= value <= most):
                raise ValueError(f"convertible model: {name}: expected a number from {least} to {most}, found {value}")


def level_coupons(*, face: float, rate: float, per_year: int, maturity: Years) -> tuple[tuple[Years, float], ...]:
    """Equal coupons face rate / per_year at maturity and every 1 / per_year before it, as long as after time 0.

    Errors: ValueError for fewer than one a year. A short first period pays a whole coupon.

    >>> level_coupons(face=100.0, rate=0.08, per_year=2, maturity=1.25)
    ((0.25, 4.0), (0.75, 4.0), (1.25, 4.0))
    """
    if per_year < 1:
        raise ValueError(f"level_coupons: per_year: expected at least 1, found {per_year}")
    count = math.ceil(maturity * per_year - SAME_INSTANT)
    return tuple((maturity - k / per_year, face * rate / per_year) for k in range(count - 1, -1, -1))


def _check_window(what: str, start: Years, end: Years, price: float) -> None:
    if not (math.isfinite(start) and math.isfinite(end) and start <= end):
        raise ValueError(f"{what}: expected a window with start <= end, found {start} to {end}")
    if not (math.isfinite(price) and price >= 0.0):
        raise ValueError(f"{what} from {start}: price: expected a number >= 0, found {price}")


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"convertible: {name}: expected a finite time in years, found {value}")
