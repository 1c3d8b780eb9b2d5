"""Attribution says which Greek earned what; law: terms are computed, the remainder is shown as a difference, never allocated.

Between two samples the book is repriced stepwise (time, then spot, then vol; rates are constant in a run) and each step is
split into its Taylor terms at the point where the step begins:

    time   theta dt
    spot   delta dS + gamma dS^2 / 2          at (S0, t1, v0)
    vol    vega dv + vanna dS dv + volga dv^2 / 2   at (S0, t1, v0)

A convertible has the first three of these by its own model (theta, delta, gamma at its beginning); what vol, credit and its
market's mood did to it is residual.

Greeks are those at vols that stand still, whatever the smile rule: a vol that moved with spot is in vega and vanna. What is
left of each step, and what marks differ from the model, is the residual. dt runs on the valuation's clock; time to an expiry
inside the interval stops at the expiry. Intervals across a corporate action have no terms: their P&L is residual, and alarmed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.domain.instruments import ConvertibleBond, OptionContract, Perpetual, Universe
from bot.domain.units import NS_PER_YEAR, Nanos
from bot.engine.sampler import Table, Track
from bot.engine.valuation import Slice, Valuation

Floats = NDArray[np.float64]
ONE_BLOCK: Final = 64
"""So many contracts are valued over all samples at once; more only while they were held."""
TERMS = ("delta", "gamma", "theta", "vega", "vanna", "volga", "carry", "cost", "residual")


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """P&L by source in the base currency; the nine terms sum to `total`."""

    delta: float = 0.0
    gamma: float = 0.0
    theta: float = 0.0
    vega: float = 0.0
    vanna: float = 0.0
    volga: float = 0.0
    carry: float = 0.0
    cost: float = 0.0
    residual: float = 0.0
    total: float = 0.0

    def __add__(self, other: Attribution) -> Attribution:
        return Attribution(**{f: getattr(self, f) + getattr(other, f) for f in self.__struct_fields__})


class GammaRent(msgspec.Struct, frozen=True, kw_only=True):
    """Realised against implied variance: what gamma earned and what theta asked for it. Vols per year."""

    realised_vol: float | None
    implied_vol: float | None
    gamma_pnl: float
    theta_pnl: float


class Intervals(msgspec.Struct, frozen=True, kw_only=True):
    """Attribution of one account between consecutive samples. Shape: each term (samples - 1,)."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    terms: dict[str, Floats]
    option_pnl: Floats
    hedge_pnl: Floats
    total: Floats
    net_delta: Floats
    option_delta: Floats
    option_delta_of: Mapping[str, Floats]
    net_gamma: Floats

    def sum(self, chosen: NDArray[np.bool_] | NDArray[np.int64] | slice = slice(None)) -> Attribution:
        """The terms summed over some intervals."""
        sums = {name: float(np.sum(self.terms[name][chosen])) for name in TERMS}
        return Attribution(**sums, total=float(np.sum(self.total[chosen])))


def attribute(
    table: Table,
    account: str,
    valuation: Valuation,
    universe: Universe,
    spots: Mapping[str, Floats],
    convert: Callable[[str], Decimal | None],
) -> Intervals:
    """The attribution of one account over all samples of a run. Shape: spots by underlying (samples,)."""
    track = table.tracks[account]
    instants = table.instants
    count = max(len(instants) - 1, 0)
    terms = {name: np.zeros(count) for name in TERMS}
    option_delta_of: dict[str, Floats] = {}
    net_gamma = np.zeros(count)
    broken = np.zeros(count, dtype=bool)
    for item in table.breaks:
        if 0 < item.sample <= count:
            broken[item.sample - 1] = True
    for key in valuation.slices:
        s = table.parts[key]
        blocks = _blocks(track, s, count)
        if not blocks:
            continue
        fx = convert(s.contracts[0].currency)
        scale = 1.0 if fx is None else float(fx)
        option_delta_of[key] = np.zeros(count)
        for block in blocks:
            found = _block_terms(table, key, spots[key], valuation, block, broken)
            for name, values in found.items():
                if name in terms:
                    terms[name][block.span] += scale * values
            option_delta_of[key][block.span] = found["net_delta"]
            net_gamma[block.span] += found["net_gamma"]
    for bond in _bonds_held(track, universe, count):
        fx = convert(bond.currency)
        found = _bond_terms(instants, spots[bond.underlying], valuation, bond, _quantities(track, bond.id, count))
        for name in ("theta", "delta", "gamma"):
            terms[name] += np.where(broken, 0.0, (1.0 if fx is None else float(fx)) * found[name])
        option_delta_of[bond.underlying] = option_delta_of.get(bond.underlying, 0.0) + found["net_delta"]
        net_gamma += found["net_gamma"]
    option_delta = np.sum(list(option_delta_of.values()), axis=0) if option_delta_of else np.zeros(count)
    steps = _steps(track.pnl, count)
    terms["delta"] += steps[:, 2]
    paid = _steps(track.costs, count)
    terms["cost"] -= paid[:, 0] + paid[:, 1] + paid[:, 2]
    terms["carry"] += paid[:, 3]
    known = np.sum([terms[name] for name in TERMS if name != "residual"], axis=0) if count else np.zeros(0)
    terms["residual"] = steps[:, 0] - known
    return Intervals(
        start=instants[:-1],
        end=instants[1:],
        terms=terms,
        option_pnl=steps[:, 1],
        hedge_pnl=steps[:, 2],
        total=steps[:, 0],
        net_delta=option_delta + _linear(track, table, universe, count),
        option_delta=option_delta,
        option_delta_of=option_delta_of,
        net_gamma=net_gamma,
    )


def _steps(path: Floats, count: int) -> Floats:
    """Changes between samples; what stands at the first sample (the opening trades) belongs to the first interval."""
    if not count:
        return np.zeros((0, path.shape[1] if path.ndim == 2 else 0))
    steps = np.diff(path, axis=0)
    steps[0] += path[0]
    return steps


class Block(NamedTuple):
    """Intervals over which the same few contracts of a slice were held. Shape: rows (k,); weights (intervals, k), contracts x
    multiplier."""

    span: slice
    rows: NDArray[np.int64]
    weights: Floats


def _blocks(track: Track, s: Slice, count: int) -> list[Block]:
    """The intervals in which anything of a slice was held: one block, or where many contracts came and went over time one for
    each set that was held together, so that an overlay of decades is not valued as decades of all its contracts."""
    if len(s.contracts) <= ONE_BLOCK:
        weights = np.zeros((count, len(s.contracts)))
        for j, contract in enumerate(s.contracts):
            if contract.id in track.quantities:
                weights[:, j] = track.quantities[contract.id].column(count) * s.multiplier[j]
        return [Block(slice(0, count), np.arange(len(s.contracts)), weights)] if weights.any() else []
    found: list[Block] = []
    together: list[tuple[slice, Floats]] = []
    rows_before: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    for rows, held in [*_runs(track, count, s.rows), (slice(count, count), {})]:
        pairs = sorted((s.rows[key], float(quantity)) for key, quantity in held.items() if key in s.rows and quantity)
        now = np.array([row for row, _ in pairs], dtype=np.int64)
        if together and (not np.array_equal(now, rows_before) or rows.start == count):
            whole = slice(together[0][0].start, together[-1][0].stop)
            weights = np.concatenate([np.tile(w, (part.stop - part.start, 1)) for part, w in together])
            found.append(Block(whole, rows_before, weights))
            together = []
        if len(now):
            together.append((rows, np.array([quantity for _, quantity in pairs]) * s.multiplier[now]))
        rows_before = now
    return found


def _block_terms(
    table: Table, key: str, spot: Floats, valuation: Valuation, block: Block, broken: NDArray[np.bool_]
) -> dict[str, Floats]:
    """The terms of a block's contracts over its intervals. Shape: each (intervals of the block,)."""
    s, vols, slopes = table.parts[key], table.vols[key], table.slopes.get(key)
    samples = slice(block.span.start, block.span.stop + 1)
    part = s if len(block.rows) == len(s.contracts) else s.part(block.rows)
    return _slice_terms(
        table.instants[samples],
        spot[samples],
        vols[samples, block.rows] if part is not s else vols[samples],
        valuation,
        part,
        block.weights,
        broken[block.span],
        None if slopes is None else slopes[samples][:, block.rows],
    )


def _bonds_held(track: Track, universe: Universe, count: int) -> list[ConvertibleBond]:
    """The convertibles an account held at any time, in order of id."""
    held = [key for key, course in track.quantities.items() if course.column(count).any()]
    return [item for item in map(universe.get, held) if isinstance(item, ConvertibleBond)]


def _quantities(track: Track, key: str, count: int) -> Floats:
    """Contracts held of one instrument over each interval. Shape: (intervals,)."""
    return track.quantities[key].column(count)


def _bond_terms(
    instants: NDArray[np.int64], spot: Floats, valuation: Valuation, bond: ConvertibleBond, held: Floats
) -> dict[str, Floats]:
    """Theta, delta and gamma of a convertible by its model, 0 where it has none. Shape: instants, spot (n + 1,), held (n,)."""
    found = valuation.bonds.path(bond, spot[:-1], instants[:-1])
    dS, dt = np.diff(spot), np.diff(instants) / NS_PER_YEAR
    parts = {
        "theta": float(bond.multiplier) * found.theta * dt,
        "delta": found.delta * dS,
        "gamma": 0.5 * found.gamma * dS**2,
        "net_delta": found.delta,
        "net_gamma": found.gamma,
    }
    known = np.all([np.isfinite(values) for values in parts.values()], axis=0) & (held != 0.0)
    return {name: np.where(known, held * values, 0.0) for name, values in parts.items()}


def _linear(track: Track, table: Table, universe: Universe, count: int) -> Floats:
    """Delta of the linear holdings over each interval; an inverse contract's is multiplier / price, falling with it."""
    out = np.zeros(count)
    for key, course in track.quantities.items():
        item = universe.get(key)
        if isinstance(item, OptionContract | ConvertibleBond) or key not in table.prices:
            continue
        held = course.column(count, lambda quantity, m=item.multiplier: float(quantity * m))  # type: ignore[misc]  # bound now
        inverse = isinstance(item, Perpetual) and item.inverse
        out += np.where(held == 0.0, 0.0, held / (table.prices[key][:count] if inverse else 1.0))
    return out


def _runs(track: Track, count: int, among: Container[str]) -> Iterator[tuple[slice, Mapping[str, Decimal]]]:
    """Runs of intervals over which the holdings of some instruments did not change."""
    changes: dict[int, list[tuple[str, Decimal]]] = {0: []}
    for key, course in track.quantities.items():
        if key in among:
            for at, quantity in zip(course.at, course.values, strict=True):
                changes.setdefault(at, []).append((key, quantity))
    starts = sorted(at for at in changes if at < count)
    held: dict[str, Decimal] = {}
    for start, stop in pairwise([*starts, count]):
        for key, quantity in changes[start]:
            held[key] = quantity
            if not quantity:
                del held[key]
        yield slice(start, stop), dict(held)


def _slice_terms(
    instants: NDArray[np.int64],
    spot: Floats,
    vol: Floats,
    valuation: Valuation,
    s: Slice,
    weights: Floats,
    broken: NDArray[np.bool_],
    slopes: Floats | None,
) -> dict[str, Floats]:
    spot = spot[:, None]
    clock = np.minimum(instants[:, None], s.expiry[None, :])
    S0, S1, v0, v1 = spot[:-1], spot[1:], vol[:-1], vol[1:]
    t0, t1 = clock[:-1], clock[1:]
    base = valuation.units(s, S0, t0, v0, second=False)
    later = valuation.units(s, S0, t1, v0)
    moved = valuation.units(s, S1, t1, v0, second=False)
    last = valuation.units(s, S1, t1, v1, second=False)
    dt = (s.clock.of(t1) - s.clock.of(t0)) / NS_PER_YEAR
    dS, dv = S1 - S0, np.where(np.isnan(v1), 0.0, v1 - v0)
    alive = (weights != 0.0) & (instants[:-1, None] < s.expiry[None, :]) & ~broken[:, None]
    parts = {
        "theta": base.theta * dt,
        "delta": later.delta * dS,
        "gamma": 0.5 * later.gamma * dS**2,
        "vega": later.vega * dv,
        "vanna": later.vanna * dS * dv,
        "volga": 0.5 * later.volga * dv**2,
    }
    usable = alive & np.isfinite(base.price) & np.isfinite(moved.price) & np.isfinite(last.price)
    for values in parts.values():
        usable = usable & np.isfinite(values)
    held = np.where(usable, weights, 0.0)
    out = {name: np.sum(np.where(usable, values, 0.0) * held, axis=1) for name, values in parts.items()}
    total = valuation.total_delta(s, base, None if slopes is None else slopes[:-1])
    out["net_delta"] = np.sum(np.where(usable & np.isfinite(total), total, 0.0) * held, axis=1)
    out["net_gamma"] = np.sum(np.where(usable, base.gamma, 0.0) * held, axis=1)
    return out


def gamma_rent(intervals: Intervals, spot: Floats, vol: Floats, years: float) -> GammaRent:
    """Realised vol of the sampled spot, the mean implied vol, and what gamma and theta earned."""
    returns = np.diff(np.log(spot)) if len(spot) > 1 else np.zeros(0)
    returns = returns[np.isfinite(returns)]
    realised = math.sqrt(float(np.sum(returns**2)) / years) if years > 0 and len(returns) else None
    finite = vol[np.isfinite(vol)]
    return GammaRent(
        realised_vol=realised,
        implied_vol=float(np.mean(finite)) if len(finite) else None,
        gamma_pnl=float(np.sum(intervals.terms["gamma"])),
        theta_pnl=float(np.sum(intervals.terms["theta"])),
    )


def per_hedge(intervals: Intervals, fills: Sequence[int]) -> list[tuple[Nanos, Nanos, Attribution]]:
    """Attribution between consecutive hedges: (from, to, terms) for each run of intervals with one fill count."""
    out: list[tuple[Nanos, Nanos, Attribution]] = []
    counts = np.asarray(fills[:-1]) if len(fills) > 1 else np.zeros(0)
    start = 0
    for i in range(1, len(counts) + 1):
        if i == len(counts) or counts[i] != counts[start]:
            chosen = slice(start, i)
            out.append((int(intervals.start[start]), int(intervals.end[i - 1]), intervals.sum(chosen)))
            start = i
    return out
