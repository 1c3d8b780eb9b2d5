"""A shelf keeps the grids of convertible bonds, one for each bond, market and day; law: a value depends on its arguments alone.

A grid is made for an anchor, the latest of the day's beginning and the last event of the terms (a coupon, the end of a
window); between anchors the price moves by the grid's theta. So the same spot and instant give the same bits whatever was
asked before, and a hedger reads a curve on each tick instead of solving an equation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.domain.convertible import SAME_INSTANT, ConvertibleModel, ConvertibleTerms
from bot.domain.instruments import ConvertibleBond
from bot.domain.units import DAYS_PER_YEAR, NS_PER_YEAR, Nanos, Years
from bot.pricing import convertible
from bot.pricing.convertible import Accuracy, ConvertibleGrid

Floats: TypeAlias = NDArray[np.float64]
By: TypeAlias = Literal["vol", "spread"]

MOST_GRIDS: Final = 400
"""Grids kept; the oldest used goes first. One of default accuracy takes 40 kB."""
LADDERS: Final[dict[By, tuple[float, ...]]] = {
    "vol": (0.02, 0.1, 0.2, 0.3, 0.45, 0.7, 1.1, 1.8, 3.0),
    "spread": (0.0, 0.01, 0.03, 0.07, 0.15, 0.3, 0.6, 1.2, 2.0),
}
"""Where an implied vol or spread is looked for: between the first two of these that lie on either side of the price."""
NEAR: Final = 0.15
"""How far either side of a last answer the next is looked for first, as a share of it."""
MOST_STEPS: Final = 60
CLOSE: Final = 1e-6
"""An implied number is found when it gives the price back to this part of face."""


class BondValue(NamedTuple):
    """A bond at some spots. `price` is in per cent of face, dirty; `delta` in shares per bond; `gamma` per 1 of spot.

    `theta` is in per cent of face a year; `parity` and `floor` are prices. Shape: that of the spots.
    """

    price: Floats
    delta: Floats
    gamma: Floats
    theta: Floats
    parity: Floats
    floor: Floats


class Shelf:
    """Grids by terms, model and anchor. No I/O; pricing kernels load with the first grid."""

    def __init__(self, *, accuracy: Accuracy = "default", keep: int = MOST_GRIDS) -> None:
        if keep < 1:
            raise ValueError(f"shelf: keep: expected at least 1 grid, found {keep}")
        self.accuracy: Accuracy = accuracy
        self._keep = keep
        self._grids: dict[tuple[ConvertibleTerms, ConvertibleModel, Years], ConvertibleGrid | None] = {}
        self._events: dict[ConvertibleTerms, tuple[Years, ...]] = {}
        self._paths: dict[str, tuple[object, BondValue]] = {}

    def grid(self, terms: ConvertibleTerms, model: ConvertibleModel, anchor: Years) -> ConvertibleGrid | None:
        """The grid of some terms at an anchor, made once; None for a market no grid can hold."""
        key = (terms, model, anchor)
        if key in self._grids:
            made = self._grids[key] = self._grids.pop(key)  # the youngest used stands last
            return made
        made = self._grids[key] = solve(terms, model, at=anchor, accuracy=self.accuracy)
        if len(self._grids) > self._keep:
            del self._grids[next(iter(self._grids))]
        return made

    def anchor(self, terms: ConvertibleTerms, at: Years) -> Years:
        """The instant whose grid serves `at`: its day's beginning, or the last event of the terms if that came later."""
        events = self._events.get(terms)
        if events is None:
            events = self._events[terms] = events_of(terms)
        day = math.floor(at * DAYS_PER_YEAR + 1e-9) / DAYS_PER_YEAR
        return max([day, *(when for when in events if when <= at + SAME_INSTANT)])

    def value(
        self,
        bond: ConvertibleBond,
        spot: float | Floats,
        ts: Nanos,
        *,
        model: ConvertibleModel | None = None,
        terms: ConvertibleTerms | None = None,
    ) -> BondValue:
        """What the bond is worth at an instant, by `model` and `terms` or its own; NaN where nobody knows, 0 once redeemed.

        Shape: that of `spot`.
        """
        own = bond.terms if terms is None else terms
        S = np.asarray(spot, dtype=np.float64)
        stamps = np.full(S.size, ts, dtype=np.int64)
        found = self._values(bond, S.reshape(-1), stamps, self.anchor(own, bond.years(ts)), model=model, terms=own)
        return BondValue(*(np.broadcast_to(row, S.size).reshape(S.shape) for row in found))

    def path(
        self,
        bond: ConvertibleBond,
        spots: Floats,
        instants: NDArray[np.int64],
        *,
        model: ConvertibleModel | None = None,
        terms: ConvertibleTerms | None = None,
    ) -> BondValue:
        """What the bond is worth along a path, each instant with the bits of `value`. Shape: spots, instants (n,).

        The last path of each bond is kept: a report asks for the same one account after account. Read-only.
        """
        own = bond.terms if terms is None else terms
        asked = (own, model, spots.tobytes(), instants.tobytes())
        last = self._paths.get(bond.id)
        if last is not None and last[0] == asked:
            return last[1]
        out = np.full((len(BondValue._fields), len(spots)), math.nan)
        anchors = np.array([self.anchor(own, bond.years(ts)) for ts in instants.tolist()])
        for anchor in np.unique(anchors):
            rows = np.flatnonzero(anchors == anchor)
            out[:, rows] = self._values(bond, spots[rows], instants[rows], float(anchor), model=model, terms=own)
        out.setflags(write=False)
        found = BondValue(*out)
        self._paths[bond.id] = (asked, found)
        return found

    def _values(
        self,
        bond: ConvertibleBond,
        spots: Floats,
        instants: NDArray[np.int64],
        anchor: Years,
        *,
        model: ConvertibleModel | None,
        terms: ConvertibleTerms,
    ) -> Floats:
        """Instants of one anchor. Shape: spots, instants (n,); result (fields, n)."""
        at = (instants - bond.reference) / NS_PER_YEAR
        seen = bond.model if model is None else model
        made = None if seen is None else self.grid(terms, seen, min(anchor, terms.maturity))
        over = at > terms.maturity + SAME_INSTANT
        if made is None:
            return np.tile(np.where(over, 0.0, math.nan), (len(BondValue._fields), 1))
        found = made.read(spots)
        scale = 100.0 / bond.terms.face
        aged = found.price + found.theta * np.maximum(at - made.at, 0.0)
        columns = (
            scale * np.maximum(aged, 0.0),
            found.delta,
            found.gamma,
            scale * found.theta,
            scale * found.parity,
            scale * found.bond_floor,
        )
        return np.where(over, 0.0, np.stack(columns))


def solve(
    terms: ConvertibleTerms, model: ConvertibleModel, *, at: Years, accuracy: Accuracy = "default"
) -> ConvertibleGrid | None:
    """The grid of one bond under one model at `at`, without the Greeks of vol, rate and credit; None where there is none."""
    settings = msgspec.structs.asdict(model)
    try:
        return convertible.grid(terms, **settings, at=at, accuracy=accuracy, greeks=False)
    except ValueError:
        return None  # a market outside the domain or too wild for a grid: the bond has no price then, and NaN says so


def credit_delta(
    terms: ConvertibleTerms, model: ConvertibleModel, *, spot: float, at: Years, accuracy: Accuracy = "default"
) -> float:
    """The change of a bond's value, in currency, per 1.00 of the spread (or hazard) the model is given; NaN if unknown.

    A difference over one per cent either side, or over what of it lies above zero.
    """
    name = "hazard" if model.hazard is not None else "spread"
    level = getattr(model, name) or 0.0
    step = 0.01
    low = max(level - step, 0.0)
    worth = [_worth(terms, _with(model, name, x), spot, at, accuracy) for x in (low, level + step)]
    return (worth[1] - worth[0]) / (level + step - low)


def implied(
    terms: ConvertibleTerms,
    model: ConvertibleModel,
    *,
    spot: float,
    price: float,
    at: Years,
    by: By,
    accuracy: Accuracy = "default",
    near: float | None = None,
) -> float:
    """The vol or spread at which the model gives `price` (currency per bond, dirty); NaN where none on the ladder does.

    The value need not be monotone (calls cap what vol adds; a share that drops to nothing grows faster while it lives), so
    the bracket round `near` (the last answer, say) is tried first, then the lowest of the ladder; each is searched by false
    position with the Illinois step.
    """
    name = "hazard" if by == "spread" and model.hazard is not None else by

    def miss(x: float) -> float:
        return _worth(terms, _with(model, name, x), spot, at, accuracy) - price

    tolerance = CLOSE * terms.face
    if near is not None and near > 0.0:
        found = _root(miss, (near * (1.0 - NEAR), near * (1.0 + NEAR)), tolerance=tolerance)
        if not math.isnan(found):
            return found
    return _root(miss, LADDERS[by], tolerance=tolerance)


def events_of(terms: ConvertibleTerms) -> tuple[Years, ...]:
    """Every time at which the terms change or pay, ascending: coupons, ends of windows, new ratios."""
    windows = [edge for call in terms.calls for edge in (call.start, call.end)]
    windows += [edge for put in terms.puts for edge in (put.start, put.end)]
    conversion = [edge for edge in (terms.convertible_from, terms.convertible_to) if edge is not None]
    paid = [when for when, _ in (*terms.coupons, *terms.ratio_changes)]
    return tuple(sorted({*windows, *conversion, *paid}))


def called(terms: ConvertibleTerms, *, at: Years, price: float) -> ConvertibleTerms:
    """The terms after notice of redemption at time `at` for `price` all in (currency): a short bond with a last choice.

    What the holder has left is the better of the shares and `price`, until and at `at`; coupons before `at` are paid, later
    ones, calls and puts fall away. Errors: ValueError for a notice after maturity.
    """
    if at > terms.maturity + SAME_INSTANT:
        raise ValueError(f"convertible: call: expected a date by maturity {terms.maturity}, found {at}")
    begin, finish = terms.conversion_window
    return msgspec.structs.replace(
        terms,
        maturity=at,
        redemption=price,
        coupons=tuple(pair for pair in terms.coupons if pair[0] < at - SAME_INSTANT),
        accrual_from=min(terms.accrual_from, at),
        calls=(),
        puts=(),
        convertible_from=None if terms.convertible_from is None else min(begin, at),
        convertible_to=min(finish, at),
        ratio_changes=tuple(pair for pair in terms.ratio_changes if pair[0] <= at),
    )


def _with(model: ConvertibleModel, name: str, value: float) -> ConvertibleModel:
    """The model with another number of that name."""
    changed: ConvertibleModel = msgspec.structs.replace(model, **{name: value})
    return changed


def _worth(terms: ConvertibleTerms, model: ConvertibleModel, spot: float, at: Years, accuracy: Accuracy) -> float:
    made = solve(terms, model, at=at, accuracy=accuracy)
    return math.nan if made is None else float(made.read(spot).price)


def _root(miss: Callable[[float], float], ladder: tuple[float, ...], *, tolerance: float) -> float:
    """Where `miss` is zero between two rungs, to `tolerance` in its value; NaN where it changes sign between none."""
    low, a = ladder[0], miss(ladder[0])
    for high in ladder[1:]:
        b = miss(high)
        if a * b <= 0.0:
            return _illinois(miss, (low, a), (high, b), tolerance)
        low, a = high, b
    return math.nan


def _illinois(
    miss: Callable[[float], float], left: tuple[float, float], right: tuple[float, float], tolerance: float
) -> float:
    """False position whose standing end is halved when it stood twice: Dowell and Jarratt (1971)."""
    (low, a), (high, b) = left, right
    side = 0
    for _ in range(MOST_STEPS):
        if a == b:
            return low
        x = (low * b - high * a) / (b - a)
        y = miss(x)
        if not abs(y) > tolerance:
            return x
        if (y > 0.0) == (b > 0.0):
            high, b = x, y
            a = 0.5 * a if side == 1 else a
            side = 1
        else:
            low, a = x, y
            b = 0.5 * b if side == -1 else b
            side = -1
    return 0.5 * (low + high)
