"""A calibration is what our own fills say the paper broker should be told of spread, latency and impact; law: a number comes
with its standard error and count, and where the fills cannot tell, a sentence stands in its place.

The fits see executions, not quotes in between, so they describe what we paid at the sizes we traded and nothing beyond.

- Spread: the distance from middle to price against the half spread the decision saw, through the origin; and against the
  price itself, in basis points.
- Latency: a constant and a uniform draw, as the paper broker has it: the unbiased estimators from the extremes of n draws
  (Johnson, Kotz and Balakrishnan 1995), unless a Kolmogorov-Smirnov test refuses the uniform law; then the
  draw that has the sample's 5% and 95% quantiles.
- Impact: how much worse than the touch a walk of relative depth x executed, y = c sqrt(x) and y = c x, through the origin by
  a Huber (1964) M-estimate, so that a few odd fills do not bend it. Standard errors are heteroskedasticity-robust (White 1980).
  A computed price is rounded to its tick against us, half a tick on average: the fit takes that off again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.domain.instruments import Instrument
from bot.domain.units import Nanos, span
from bot.engine.performance import ONE_BP, HedgeRecord, Walk

Floats = NDArray[np.float64]

FEWEST: Final = 3
"""Below so many observations a fit has no standard error worth the name."""
HUBER: Final = 1.345
"""Residuals beyond so many robust deviations count less: 95% efficiency under normal errors (Huber 1981)."""
REFUSED: Final = 0.01
"""Below this probability of the Kolmogorov-Smirnov test the latencies are not taken as uniform."""
AS_QUOTED: Final = 0.02
"""A share of the half spread so near to one is one: quotes widen and narrow between decision and arrival."""

ImpactKind = Literal["square_root", "linear"]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A number with its standard error and count, or the sentence that says why there is none."""

    value: float | None = None
    error: float | None = None
    count: int = 0
    text: str = ""

    @property
    def known(self) -> bool:
        """True when there is a number."""
        return self.value is not None

    def differs_from(self, number: float, *, errors: float = 2.0) -> bool:
        """True when the number lies more than so many standard errors away."""
        return self.value is not None and abs(self.value - number) > errors * (self.error or 0.0)


class SpreadFit(msgspec.Struct, frozen=True, kw_only=True):
    """What of the spread is paid: `share` of the half spread seen at the decision, `half_bp` of the price. `as_quoted`: an
    instrument that fills at the quoted touch, so far as the fills can tell (None: they cannot)."""

    share: Estimate
    half_bp: Estimate
    as_quoted: bool | None


class LatencyFit(msgspec.Struct, frozen=True, kw_only=True):
    """Nanoseconds from decision to venue: a constant `latency` and a uniform draw up to `jitter`; the quantiles are the
    sample's. `uniform` is the probability of so uneven a sample under the uniform law."""

    latency: Estimate
    jitter: Estimate
    quantiles: dict[str, float] = {}
    uniform: float | None = None


class ImpactFit(msgspec.Struct, frozen=True, kw_only=True):
    """The coefficients of both laws as fractions of the price, and the law the fills prefer (None: they cannot tell).

    `adv` is the volume depths were scaled by, None: by what the walked quotes displayed.
    """

    square_root: Estimate
    linear: Estimate
    kind: ImpactKind | None
    adv: Decimal | None
    text: str = ""

    @property
    def chosen(self) -> Estimate | None:
        """The estimate of the preferred law."""
        return None if self.kind is None else self.square_root if self.kind == "square_root" else self.linear


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Everything fitted from own fills: spreads by instrument, latency, impact."""

    spreads: dict[str, SpreadFit]
    latency: LatencyFit
    impact: ImpactFit
    orders: int
    filled: int


def calibrate(
    records: Sequence[HedgeRecord], instruments: Mapping[str, Instrument], *, adv: Decimal | None = None
) -> Calibration:
    """What the records of our own orders say; `adv` is a daily volume to scale impact by, None: the display.

    Closing orders count: a fill is a fill. ValueError for a volume that is not above zero.
    """
    if adv is not None and not (adv.is_finite() and adv > 0):
        raise ValueError(f"calibration: adv: expected contracts a day above 0, found {adv}")
    filled = [record for record in records if record.done]
    names = sorted({record.instrument for record in filled})
    return Calibration(
        spreads={name: fit_spread([r for r in filled if r.instrument == name], instruments[name]) for name in names},
        latency=fit_latency([record.latency for record in records if record.latency is not None]),
        impact=fit_impact([(w, instruments[r.instrument].tick) for r in filled for w in r.walks], adv=adv),
        orders=len(records),
        filled=len(filled),
    )


# --------------------------------------------------------------------------- spread


def fit_spread(records: Sequence[HedgeRecord], instrument: Instrument) -> SpreadFit:
    """What of the spread the fills of one instrument paid."""
    share = _fit_share(records)
    half_bp = _fit_half(records)
    if not share.known:
        return SpreadFit(share=share, half_bp=half_bp, as_quoted=None)
    near = abs((share.value or 0.0) - 1.0) <= AS_QUOTED or not share.differs_from(1.0)
    if near or not half_bp.known:
        return SpreadFit(share=share, half_bp=half_bp, as_quoted=near)
    return SpreadFit(share=share, half_bp=_within_ticks(half_bp, records, instrument.tick), as_quoted=False)


def _within_ticks(fit: Estimate, records: Sequence[HedgeRecord], tick: Decimal | None) -> Estimate:
    """The half spread in basis points before a computed touch was rounded outward to its tick.

    Each fill says that it lies in ((paid - tick)/mid, paid/mid]. Where one number lies in four of five of these, it is the
    middle of where most of them overlap; else half a tick is taken off the mean, and its rounding added to the error.
    """
    pairs = [(float(r.spread_paid), float(r.mid)) for r in records if r.mid and r.mid > 0 and r.spread_paid is not None]
    if not tick or not pairs:
        return fit
    step = float(tick)
    paid, mid = np.array(pairs).T
    low, high = np.maximum(paid - step, 0.0) / mid / ONE_BP, paid / mid / ONE_BP
    edges = np.sort(np.concatenate((low, high)))
    middles = 0.5 * (edges[:-1] + edges[1:])
    inside = np.searchsorted(np.sort(low), middles) - np.searchsorted(np.sort(high), middles)
    best = np.flatnonzero(inside == inside.max())
    if inside.max() >= 0.8 * len(pairs):
        start, end = float(edges[best[0]]), float(edges[best[-1] + 1])
        error = (end - start) / math.sqrt(12.0)
        return Estimate(value=0.5 * (start + end), error=error, count=len(pairs), text="before rounding to the tick")
    unit = step / float(np.mean(mid)) / ONE_BP
    error = math.hypot(fit.error or 0.0, unit / math.sqrt(12.0))
    return msgspec.structs.replace(fit, value=max(0.0, (fit.value or 0.0) - 0.5 * unit), error=error)


def _fit_share(records: Sequence[HedgeRecord]) -> Estimate:
    pairs = [(r.decision_half, r.spread_paid) for r in records if r.decision_half and r.spread_paid is not None]
    if len(pairs) < FEWEST:
        return Estimate(count=len(pairs), text=_too_few(len(pairs), "fill with a two-sided quote at its decision"))
    return _through_origin(_floats(a for a, _ in pairs), _floats(b for _, b in pairs))


def _fit_half(records: Sequence[HedgeRecord]) -> Estimate:
    pairs = [(r.mid, r.spread_paid) for r in records if r.mid and r.mid > 0 and r.spread_paid is not None]
    if len(pairs) < FEWEST:
        return Estimate(count=len(pairs), text=_too_few(len(pairs), "fill"))
    return _through_origin(_floats(a for a, _ in pairs) * ONE_BP, _floats(b for _, b in pairs))


# --------------------------------------------------------------------------- latency


def fit_latency(latencies: Sequence[Nanos]) -> LatencyFit:
    """A constant and a uniform draw that describe how long orders took to the venue."""
    n = len(latencies)
    if n < FEWEST:
        none = Estimate(count=n, text=_too_few(n, "order that reached the venue"))
        return LatencyFit(latency=none, jitter=none)
    x = np.sort(np.asarray(latencies, np.float64))
    quantiles = {f"p{q}": float(np.quantile(x, q / 100)) for q in (5, 50, 90, 95, 99)}
    low, high = float(x[0]), float(x[-1])
    if low == high:
        same = Estimate(value=low, error=0.0, count=n, text=f"every order took {span(int(low))}" if low else "")
        zero = Estimate(value=0.0, error=0.0, count=n)
        return LatencyFit(latency=same, jitter=zero, quantiles=quantiles)
    width = (high - low) * (n + 1) / (n - 1)
    probability = _uniform_probability(x)
    if probability >= REFUSED:
        start = low - (high - low) / (n - 1)
        start_error = width * math.sqrt(n / ((n * n - 1) * (n + 2)))
        width_error = width * math.sqrt(2.0 / ((n - 1) * (n + 2)))
        words = ""
    else:
        width = (quantiles["p95"] - quantiles["p5"]) / 0.9
        start = quantiles["p5"] - 0.05 * width
        start_error, width_error = _quantile_errors(x)
        words = f"not uniform (p = {probability:.2g}): the draw has the 5% and 95% quantiles of the sample"
    return LatencyFit(
        latency=Estimate(value=max(0.0, start), error=start_error, count=n, text=words),
        jitter=Estimate(value=width, error=width_error, count=n, text=words),
        quantiles=quantiles,
        uniform=probability,
    )


def _uniform_probability(x: Floats) -> float:
    """The probability of so uneven a sample under a uniform law between its own extremes. Shape: x (n,) sorted.

    Given the extremes of uniform draws the others are uniform between them, so the test is exact on what lies inside.
    """
    from scipy.stats import kstest  # noqa: PLC0415  heavy, and only calibrations test a law

    inside = (x[1:-1] - x[0]) / (x[-1] - x[0])
    return float(kstest(inside, "uniform").pvalue) if len(inside) else 1.0


def _quantile_errors(x: Floats, *, draws: int = 500) -> tuple[float, float]:
    """Bootstrap standard errors of start and width from the 5% and 95% quantiles; the draws are seeded."""
    rng = np.random.default_rng(0)
    again = rng.choice(x, size=(draws, len(x)))
    p5, p95 = np.quantile(again, [0.05, 0.95], axis=1)
    width = (p95 - p5) / 0.9
    return float(np.std(p5 - 0.05 * width)), float(np.std(width))


# --------------------------------------------------------------------------- impact


class _Deep(NamedTuple):
    """Walks as columns. Shape: each (walks,): relative depth, relative impact."""

    x: Floats
    y: Floats


def fit_impact(walks: Sequence[tuple[Walk, Decimal | None]], *, adv: Decimal | None = None) -> ImpactFit:
    """Both impact laws fitted to walks beyond the display, each with its instrument's tick."""
    usable = [(walk, tick) for walk, tick in walks if adv is not None or walk.displayed]
    why = _why_no_impact(walks, usable, adv)
    if why:
        none = Estimate(count=len(usable), text=why)
        return ImpactFit(square_root=none, linear=none, kind=None, adv=adv, text=why)
    deep = _columns(usable, adv)
    root, line = _through_origin(np.sqrt(deep.x), deep.y), _through_origin(deep.x, deep.y)
    kind, text = _prefer(deep, root, line)
    return ImpactFit(square_root=root, linear=line, kind=kind, adv=adv, text=text)


def _why_no_impact(
    walks: Sequence[tuple[Walk, Decimal | None]], usable: Sequence[tuple[Walk, Decimal | None]], adv: Decimal | None
) -> str:
    """Why the walks tell no coefficient; empty when they do."""
    if not walks:
        return "no fill was worse than its touch: there is no impact to fit"
    if len(usable) < FEWEST:
        if len(walks) > len(usable):
            return (
                f"{len(walks)} fills walked beyond the touch, of {len(usable)} the displayed size is known: "
                "state a daily volume to scale them by"
            )
        return _too_few(len(usable), "fill beyond the touch")
    depth = _columns(usable, adv).x
    if float(depth.max()) <= 1.05 * float(depth.min()):
        return f"all {len(usable)} walks are of one relative size: the laws cannot be told apart, nor a coefficient trusted"
    ticks = [float(walk.worse / tick) for walk, tick in usable if tick]
    if ticks and float(np.median(ticks)) < 1.5:
        return "most walks cost a single tick: rounding hides the impact"
    return ""


def _columns(walks: Sequence[tuple[Walk, Decimal | None]], adv: Decimal | None) -> _Deep:
    x = [float(walk.depth / (adv if adv is not None else walk.displayed or walk.depth)) for walk, _ in walks]
    y = [float((walk.worse - (tick or Decimal(0)) / 2) / walk.touch) for walk, tick in walks]
    return _Deep(np.array(x), np.array(y))


def _prefer(deep: _Deep, root: Estimate, line: Estimate) -> tuple[ImpactKind | None, str]:
    """The law with the smaller robust loss, when it is smaller by two units of the Akaike criterion."""
    a = _loss(deep.y - (root.value or 0.0) * np.sqrt(deep.x))
    b = _loss(deep.y - (line.value or 0.0) * deep.x)
    tiny = 1e-24 * max(float(np.mean(deep.y**2)), 1e-300)
    lead = len(deep.x) * math.log((a + tiny) / (b + tiny))
    if abs(lead) < 2.0:
        return None, "the fills do not tell the square-root law from the linear one"
    return ("square_root", "") if lead < 0.0 else ("linear", "")


def _loss(residual: Floats) -> float:
    """A mean squared residual that a tenth of odd fills cannot carry: winsorised at three robust deviations."""
    bound = 3.0 * _deviation(residual)
    return float(np.mean(np.minimum(np.abs(residual), bound) ** 2)) if bound > 0.0 else float(np.mean(residual**2))


# --------------------------------------------------------------------------- a line through the origin


def _through_origin(x: Floats, y: Floats) -> Estimate:
    """The slope of y = c x by Huber's M-estimate, with a heteroskedasticity-robust standard error. Shape: x, y (n,)."""
    from scipy.optimize import least_squares  # noqa: PLC0415  heavy, and only calibrations fit

    n = len(x)
    scale_x, scale_y = float(np.max(np.abs(x))), float(np.max(np.abs(y)))
    if scale_x == 0.0:
        return Estimate(count=n, text="nothing to scale by: every regressor is zero")
    if scale_y == 0.0:
        return Estimate(value=0.0, error=0.0, count=n)
    u, v = x / scale_x, y / scale_y
    slope = float(np.median(v[u != 0.0] / u[u != 0.0]))
    weight = np.ones(n)
    for _ in range(20):
        spread = _deviation(v - slope * u)
        if spread <= 1e-12:  # the fills lie on a line, or more than half of them do
            break
        found = least_squares(
            lambda c: v - c[0] * u, [slope], loss="huber", f_scale=HUBER * spread, xtol=1e-14, ftol=1e-14, gtol=1e-14
        )  # fmt: skip
        moved, slope = abs(float(found.x[0]) - slope), float(found.x[0])
        residual = np.abs(v - slope * u)
        weight = np.minimum(1.0, HUBER * spread / np.maximum(residual, 1e-300))
        if moved <= 1e-12 * max(abs(slope), 1e-12):
            break
    residual = v - slope * u
    inside = np.where(weight < 1.0, 0.0, 1.0)
    psi = weight * residual
    bread = max(float(np.sum(inside * u**2)), 1e-300)
    error = math.sqrt(float(np.sum(psi**2 * u**2)) * n / (n - 1)) / bread
    back = scale_y / scale_x
    return Estimate(value=slope * back, error=error * back, count=n)


def _deviation(residual: Floats) -> float:
    """A robust standard deviation about zero: median |r| / 0.6745."""
    return float(np.median(np.abs(residual))) / 0.6745


def _floats(values: Any) -> Floats:
    return np.array([float(value) for value in values])


def _too_few(count: int, what: str) -> str:
    if not count:
        return f"no {what}"
    return f"one {what}: no error can be told" if count == 1 else f"{count} of {FEWEST}: too few ({what})"


# --------------------------------------------------------------------------- fed back


def broker_table(calibration: Calibration, base: Mapping[str, Any]) -> dict[str, Any]:
    """The `[broker]` table of a config with what the fills told laid over `base`; what they did not tell is left as it is.

    A spread that is not the quoted one is written when a single instrument traded: of several, each belongs to its hedge.
    """
    table: dict[str, Any] = {name: value for name, value in base.items() if value is not None}
    table["kind"] = "paper"
    latency, jitter = calibration.latency.latency, calibration.latency.jitter
    if latency.value is not None and jitter.value is not None:
        table |= {"latency": _span_text(latency.value), "jitter": _span_text(jitter.value)}
    if len(calibration.spreads) == 1:
        (fit,) = calibration.spreads.values()
        if fit.as_quoted:
            table["spread"] = {"kind": "quoted"}
        elif fit.as_quoted is False and fit.half_bp.value is not None:
            table["spread"] = {"kind": "basis_points", "bp": _figure(fit.half_bp.value)}
    chosen = calibration.impact.chosen
    if chosen is not None and chosen.value is not None:
        law: dict[str, Any] = {"kind": calibration.impact.kind, "coefficient": _figure(max(0.0, chosen.value))}
        if calibration.impact.adv is not None:
            law["adv"] = calibration.impact.adv
        table |= {"beyond": "impact", "impact": law}
    return table


def _span_text(ns: float) -> str:
    """A length of time as a config writes it, to the microsecond."""
    length = round(ns / 1000.0) * 1000
    return span(length) if length else "0s"


def _figure(value: float) -> Decimal:
    """Six figures: more than any of these is known to."""
    return Decimal(format(Decimal(f"{value:.6g}"), "f"))


def comments(calibration: Calibration) -> list[str]:
    """What stands above the table: each number with its error and count, or why there is none."""
    fit = calibration
    lines = [f"fitted from {fit.filled} filled orders of {fit.orders}"]
    lines.append("latency: " + _in_words(fit.latency.latency, 1e-6, "ms"))
    lines.append("jitter: " + _in_words(fit.latency.jitter, 1e-6, "ms"))
    for name, spread in fit.spreads.items():
        lines.append(f"{name}: share of the half spread seen at the decision: " + _in_words(spread.share, 1.0, ""))
        lines.append(f"{name}: half spread paid: " + _in_words(spread.half_bp, 1.0, "bp"))
    if len(fit.spreads) > 1 and any(spread.as_quoted is False for spread in fit.spreads.values()):
        lines.append("several instruments traded: state a spread that is not the quoted one under its [[hedges]]")
    for law, estimate in (("square root", fit.impact.square_root), ("linear", fit.impact.linear)):
        lines.append(f"impact, {law}: " + _in_words(estimate, 1.0, ""))
    if fit.impact.text and fit.impact.square_root.known:
        lines.append(f"impact: {fit.impact.text}")
    return lines


def _in_words(estimate: Estimate, scale: float, unit: str) -> str:
    if estimate.value is None:
        return estimate.text
    error = "" if estimate.error is None else f" +- {estimate.error * scale:.3g}"
    said = f"{estimate.value * scale:.6g}{error} {unit}".rstrip() + f" from {estimate.count}"
    return f"{said}; {estimate.text}" if estimate.text else said
