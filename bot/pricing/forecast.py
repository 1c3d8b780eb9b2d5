"""A forecast is tomorrow's variance from yesterday's prices; law: it uses nothing later than its own row. QLIKE scores it.

Variances are per period (a day, say) unless a name says otherwise; `annual_vol` turns them into a `Vol`. Filters give one
number per row, known at the end of that row: row t of a filter is the forecast for t + 1.

>>> r = np.array([0.01, -0.02, 0.015])
>>> ewma(r, decay=0.9).round(8).tolist()
[0.0001, 0.00013, 0.0001395]
>>> round(float(qlike([0.0001], [0.0002])[0]), 6)
0.193147
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.domain.units import Vol
from bot.pricing.black import Array

TRADING_DAYS: Final = 252.0
PARKINSON: Final = 0.25 / np.log(2.0)
Family = Literal["garch", "gjr", "egarch", "tarch", "harch", "figarch"]


def log_returns(price: ArrayLike) -> Array:
    """ln(P_t / P_(t-1)). Shape: (n,) gives (n - 1,)."""
    P = np.asarray(price, np.float64)
    with np.errstate(all="ignore"):
        return np.asarray(np.diff(np.log(P)))


def annual_vol(variance: ArrayLike, *, periods_per_year: float = TRADING_DAYS) -> Array:
    """The vol per square root of a year of a variance per period: sqrt(variance x periods). Shape: any. NaN below 0.

    A year of 252 sessions here; an implied vol counts 365 days: over whole years both count the same variance.
    """
    with np.errstate(all="ignore"):
        return np.asarray(np.sqrt(np.asarray(variance, np.float64) * periods_per_year))


# --------------------------------------------------------------------------- filters of returns


def ewma(returns: ArrayLike, *, decay: float = 0.94, start: float | None = None) -> Array:
    """The exponentially weighted variance after each return: h_t = decay h_(t-1) + (1 - decay) r_t^2.

    RiskMetrics 1996 (J.P. Morgan, Technical Document, section 5.2), decay 0.94 for days; mean taken as 0. `start` is the
    variance before the first row (default: the first squared return). Row t is the forecast for t + 1. An unknown return
    carries the last variance on. Shape: (n,). Errors: ValueError for a decay outside (0, 1).
    """
    r = np.asarray(returns, np.float64)
    if not 0.0 < decay < 1.0:
        raise ValueError(f"ewma: decay: expected a number in (0, 1), found {decay}")
    known = np.isfinite(r)
    if not known.any():
        return np.full(r.shape, np.nan if start is None else start)
    h = 0.0 if start is None else start
    out = np.full(r.shape, np.nan)
    begun = start is not None
    with np.errstate(over="ignore"):
        squares = np.square(r)
    h = float(squares[known][0]) if start is None else h
    for t, square in enumerate(squares):
        if known[t]:
            h, begun = decay * h + (1.0 - decay) * float(square), True
        if begun:
            out[t] = h
    return out


class GarchFit(NamedTuple):
    """A fitted model of the GARCH family, in the units of the returns.

    `variance` the conditional variance of each row, given the rows before it; `forecast` the variance of each of the next
    `horizon` periods; `persistence` alpha + beta (+ gamma/2), NaN for families without it; `log_likelihood` of the
    returns as given; `converged` False when the optimiser says so. Shape: variance (n,), forecast (horizon,).
    """

    family: Family
    parameters: dict[str, float]
    variance: Array
    forecast: Array
    persistence: float
    log_likelihood: float
    converged: bool

    def vol(self, *, periods_per_year: float = TRADING_DAYS) -> Vol:
        """The vol per square root of a year that the forecast's mean variance stands for."""
        return float(annual_vol(np.mean(self.forecast), periods_per_year=periods_per_year))


def garch(
    returns: ArrayLike,
    *,
    family: Family = "garch",
    horizon: int = 1,
    p: int = 1,
    q: int = 1,
    dist: Literal["normal", "t", "skewt", "ged"] = "normal",
    mean: Literal["Zero", "Constant"] = "Constant",
    seed: int = 0,
) -> GarchFit:
    """A model of the GARCH family by maximum likelihood, through the `arch` library.

    garch: h_t = omega + alpha e_(t-1)^2 + beta h_(t-1) (Bollerslev 1986); gjr adds gamma e^2 for falls (Glosten,
    Jagannathan and Runkle 1993); egarch in logs (Nelson 1991); tarch in |e| (Zakoian 1994); harch (Mueller et al. 1997);
    figarch (Baillie, Bollerslev and Mikkelsen 1996). Returns are scaled to a unit standard deviation for the optimiser;
    parameters come back in return units (shape parameters of the density have none). Horizons beyond 1 of egarch and tarch
    are the mean of 4000 paths drawn with `seed`.

    Shape: (n,), n >= 50. Errors: ValueError for fewer returns, any not finite, or returns that do not vary.
    """
    r = _expect_returns(returns, horizon)
    scale = 1.0 / float(np.std(r))
    model = _model(r * scale, family=family, p=p, q=q, dist=dist, mean=mean, seed=seed)
    done = model.fit(disp="off", show_warning=False)
    method = "simulation" if horizon > 1 and family in {"egarch", "tarch"} else "analytic"
    ahead = done.forecast(horizon=horizon, reindex=False, method=method, simulations=4000)
    parameters = {str(name): float(value) for name, value in done.params.items()}
    return GarchFit(
        family=family,
        parameters=_unscale(parameters, scale, family),
        variance=np.square(np.asarray(done.conditional_volatility, np.float64) / scale),
        forecast=np.asarray(ahead.variance.to_numpy()[-1], np.float64) / scale**2,
        persistence=_persistence(parameters, family),
        log_likelihood=float(done.loglikelihood) + len(r) * float(np.log(scale)),
        converged=int(done.convergence_flag) == 0,
    )


def garch_walk(
    returns: ArrayLike,
    *,
    first: int,
    refit_every: int = 250,
    family: Family = "garch",
    dist: Literal["normal", "t", "skewt", "ged"] = "normal",
    mean: Literal["Zero", "Constant"] = "Constant",
) -> Array:
    """One-period forecasts out of sample: row t is made of rows 0..t only, with parameters fitted every so often.

    NaN before row `first` - 1, the first whose forecast exists. Shape: (n,). Errors: as `garch`; ValueError where `first`
    leaves fewer than 50 rows to fit on.
    """
    r = _expect_returns(returns, 1)
    if not 50 <= first <= len(r) or refit_every < 1:
        raise ValueError(
            f"garch_walk: first: expected 50 to {len(r)} and refit_every at least 1, found {first}, {refit_every}"
        )
    out = np.full(r.shape, np.nan)
    for start in range(first, len(r) + 1, refit_every):
        end = min(start + refit_every, len(r) + 1)
        scale = 1.0 / float(np.std(r[:start]))
        seen = r[: end - 1] * scale
        fitted = _model(r[:start] * scale, family=family, dist=dist, mean=mean).fit(disp="off", show_warning=False)
        fixed = _model(seen, family=family, dist=dist, mean=mean).fix(fitted.params)
        ahead = fixed.forecast(horizon=1, start=start - 1, reindex=False)
        out[start - 1 : end - 1] = np.asarray(ahead.variance.to_numpy()[:, 0], np.float64) / scale**2
    return out


def _model(
    y: Array,
    *,
    family: Family,
    p: int = 1,
    q: int = 1,
    dist: str = "normal",
    mean: str = "Constant",
    seed: int = 0,
) -> Any:
    from arch import univariate  # noqa: PLC0415  brings pandas and statsmodels: only who fits pays for it

    vols: dict[str, Any] = {
        "garch": lambda: univariate.GARCH(p=p, o=0, q=q),
        "gjr": lambda: univariate.GARCH(p=p, o=1, q=q),
        "egarch": lambda: univariate.EGARCH(p=p, o=1, q=q),
        "tarch": lambda: univariate.GARCH(p=p, o=1, q=q, power=1.0),
        "harch": lambda: univariate.HARCH(lags=[1, 5, 22]),
        "figarch": lambda: univariate.FIGARCH(p=min(p, 1), q=min(q, 1)),
    }
    densities: dict[str, Any] = {
        "normal": univariate.Normal,
        "t": univariate.StudentsT,
        "skewt": univariate.SkewStudent,
        "ged": univariate.GeneralizedError,
    }
    means: dict[str, Any] = {"Zero": univariate.ZeroMean, "Constant": univariate.ConstantMean}
    for name, value, known in (("family", family, vols), ("dist", dist, densities), ("mean", mean, means)):
        if value not in known:
            raise ValueError(f"garch: {name}: expected one of {', '.join(known)}, found {value!r}")
    density = densities[dist](seed=np.random.default_rng(seed))
    return means[mean](y, volatility=vols[family](), distribution=density, rescale=False)


def _expect_returns(returns: ArrayLike, horizon: int) -> Array:
    r = np.asarray(returns, np.float64)
    if r.ndim != 1 or len(r) < 50 or not np.isfinite(r).all() or not np.std(r) > 0.0:
        raise ValueError(f"garch: expected at least 50 finite returns that vary, found shape {r.shape}")
    if horizon < 1:
        raise ValueError(f"garch: horizon: expected at least 1, found {horizon}")
    return r


def _unscale(parameters: dict[str, float], scale: float, family: Family) -> dict[str, float]:
    """Parameters of scaled returns as those of the returns: only the mean and omega carry a unit."""
    found = dict(parameters)
    if "mu" in found:
        found["mu"] /= scale
    if family == "egarch":
        slack = 1.0 - sum(value for name, value in parameters.items() if name.startswith("beta"))
        found["omega"] -= 2.0 * float(np.log(scale)) * slack
    else:
        found["omega"] /= scale if family == "tarch" else scale**2
    return found


def _persistence(parameters: dict[str, float], family: Family) -> float:
    """What share of a shock to variance is left a period later; NaN where the family has no such number."""
    total = {
        word: sum(value for name, value in parameters.items() if name.startswith(word))
        for word in ("alpha", "beta", "gamma")
    }
    if family in {"garch", "harch"}:
        return total["alpha"] + total["beta"]
    if family == "gjr":
        return total["alpha"] + total["beta"] + 0.5 * total["gamma"]
    return total["beta"] if family == "egarch" else float("nan")


# --------------------------------------------------------------------------- HAR


class HarFit(NamedTuple):
    """A fitted HAR-RV: coefficients (constant first, then one per window), and the forecast made after each row.

    `forecast` row t is for the mean of rows t + 1 .. t + horizon, NaN until the longest window is full; `r2` in sample.
    """

    windows: tuple[int, ...]
    horizon: int
    coefficients: tuple[float, ...]
    forecast: Array
    r2: float


def har(
    realised: ArrayLike, *, horizon: int = 1, windows: tuple[int, ...] = (1, 5, 22), rows: int | None = None
) -> HarFit:
    """The heterogeneous autoregression of realised variance, by least squares (Corsi 2009).

    RV_(t+1..t+h) = c + sum_w beta_w mean(RV_(t-w+1..t)), windows of a day, a week, a month. A forecast below the least
    variance of the rows fitted on is raised to it: the line may cross 0, a variance does not (Swanson and White 1995,
    the "insanity filter"). `rows`: fit on the first rows only, so that the later forecasts are out of sample.

    Shape: (n,). Errors: ValueError for variances negative or not finite, or fewer rows than three times the parameters.
    """
    v = np.asarray(realised, np.float64)
    if v.ndim != 1 or not np.isfinite(v).all() or (v < 0.0).any():
        raise ValueError("har: realised: expected finite variances that are not negative in one row")
    if horizon < 1 or not windows or min(windows) < 1:
        raise ValueError(f"har: expected horizon and windows of at least 1, found {horizon} and {windows}")
    X = np.column_stack([np.ones_like(v), *(rolling_mean(v, w) for w in windows)])
    first, used = max(windows) - 1, len(v) if rows is None else min(rows, len(v))
    y = np.full(v.shape, np.nan)
    if len(v) > horizon:
        y[:-horizon] = rolling_mean(v, horizon)[horizon:]
    sample = slice(first, used - horizon)
    if used - horizon - first < 3 * X.shape[1]:
        raise ValueError(f"har: expected at least {3 * X.shape[1] + horizon + first} rows to fit on, found {used}")
    beta = np.linalg.lstsq(X[sample], y[sample], rcond=None)[0]
    miss = y[sample] - X[sample] @ beta
    spread = float(np.sum(np.square(y[sample] - y[sample].mean())))
    forecast = np.maximum(X @ beta, float(v[:used].min()))
    r2 = 1.0 - float(np.sum(np.square(miss))) / spread if spread > 0.0 else float("nan")
    return HarFit(windows, horizon, tuple(float(b) for b in beta), np.asarray(forecast), r2)


def rolling_mean(values: ArrayLike, window: int) -> Array:
    """The mean of the last `window` rows, NaN until there are as many or while one of them is unknown. Shape: (n,).

    >>> rolling_mean([1.0, 2.0, 6.0], 2).tolist()
    [nan, 1.5, 4.0]
    """
    x = np.asarray(values, np.float64)
    if window < 1:
        raise ValueError(f"rolling_mean: window: expected at least 1, found {window}")
    out = np.full(x.shape, np.nan)
    if len(x) >= window:
        with np.errstate(all="ignore"):
            out[window - 1 :] = np.lib.stride_tricks.sliding_window_view(x, window).mean(axis=-1)
    return out


def rolling_variance(values: ArrayLike, window: int) -> Array:
    """The sample variance (n - 1) of the last `window` rows, NaN until there are as many. Shape: (n,); window >= 2."""
    x = np.asarray(values, np.float64)
    if window < 2:
        raise ValueError(f"rolling_variance: window: expected at least 2, found {window}")
    out = np.full(x.shape, np.nan)
    if len(x) >= window:
        with np.errstate(all="ignore"):
            out[window - 1 :] = np.lib.stride_tricks.sliding_window_view(x, window).var(axis=-1, ddof=1)
    return out


def realised_variance(returns: ArrayLike, period: ArrayLike) -> Array:
    """The sum of squared returns of each period (Andersen and Bollerslev 1998), in order of the periods' numbers.

    Shape: returns, period (n,); result (number of distinct periods,).
    """
    r, day = np.asarray(returns, np.float64), np.asarray(period)
    _, at = np.unique(day, return_inverse=True)
    return np.asarray(np.bincount(at, weights=np.square(r)))


# --------------------------------------------------------------------------- ranges


def parkinson(high: ArrayLike, low: ArrayLike) -> Array:
    """The variance of each period from its range: (ln(H/L))^2 / (4 ln 2) (Parkinson 1980).

    Five times as efficient as a squared close-to-close return; without drift or gaps between periods. Shape: broadcast.
    NaN where H < L or a price is not positive.
    """
    H, L = np.broadcast_arrays(np.asarray(high, np.float64), np.asarray(low, np.float64))
    with np.errstate(all="ignore"):
        return np.asarray(np.where((L > 0.0) & (H >= L), PARKINSON * np.square(np.log(H / L)), np.nan))


def garman_klass(opening: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike) -> Array:
    """0.5 (ln(H/L))^2 - (2 ln 2 - 1) (ln(C/O))^2 (Garman and Klass 1980, the practical estimator).

    7.4 times as efficient as close to close; without drift or gaps. Shape: broadcast. NaN for a bar that contradicts
    itself (H below, or L above, another price) or a price that is not positive.
    """
    bar, good = _bars(opening, high, low, close)
    u, d, c = bar
    with np.errstate(all="ignore"):
        return np.asarray(np.where(good, 0.5 * np.square(u - d) - (2.0 * np.log(2.0) - 1.0) * np.square(c), np.nan))


def rogers_satchell(opening: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike) -> Array:
    """u (u - c) + d (d - c), u = ln(H/O), d = ln(L/O), c = ln(C/O) (Rogers and Satchell 1991).

    Free of drift; without gaps. Shape: broadcast. NaN as in `garman_klass`.
    """
    (u, d, c), good = _bars(opening, high, low, close)
    with np.errstate(all="ignore"):
        return np.asarray(np.where(good, u * (u - c) + d * (d - c), np.nan))


def yang_zhang(opening: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike, *, window: int = 21) -> Array:
    """The variance per period over the last `window` bars, gaps and drift allowed for (Yang and Zhang 2000).

    V = V_o + k V_c + (1 - k) V_rs: V_o the sample variance of ln(O_t/C_(t-1)), V_c that of ln(C_t/O_t), V_rs the mean of
    Rogers-Satchell, k = 0.34/(1.34 + (n + 1)/(n - 1)). Shape: (n,) each. NaN for the first `window` rows (the first has no
    close before it), and while a bar in the window contradicts itself. Errors: ValueError for a window below 2.
    """
    (_, _, c), good = _bars(opening, high, low, close)
    o, C = (np.asarray(x, np.float64) for x in (opening, close))
    gap = np.full(c.shape, np.nan)
    with np.errstate(all="ignore"):
        gap[1:] = np.log(o[1:] / C[:-1])
    gap[1:][~(good[1:] & good[:-1])] = np.nan
    k = 0.34 / (1.34 + (window + 1.0) / max(window - 1.0, 1.0))
    day = rolling_variance(np.where(good, c, np.nan), window)
    return np.asarray(
        rolling_variance(gap, window)
        + k * day
        + (1.0 - k) * rolling_mean(rogers_satchell(opening, high, low, close), window)
    )


def _bars(
    opening: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike
) -> tuple[tuple[Array, Array, Array], NDArray[np.bool_]]:
    """ln(H/O), ln(L/O), ln(C/O), and which bars agree with themselves."""
    o, H, L, C = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (opening, high, low, close)))
    with np.errstate(all="ignore"):
        good = (L > 0.0) & (np.maximum(o, C) <= H) & (np.minimum(o, C) >= L) & np.isfinite(H)
        logs = np.log(H / o), np.log(L / o), np.log(C / o)
    return logs, np.asarray(good)


# --------------------------------------------------------------------------- scoring


def qlike(realised: ArrayLike, forecast: ArrayLike) -> Array:
    """The loss x - ln x - 1, x = realised / forecast (Patton 2011, up to terms without the forecast).

    0 for a perfect forecast, larger for too little than for too much; ranks forecasts rightly although `realised` is a
    noisy proxy, while that is unbiased. Shape: broadcast. NaN where either is not positive.
    """
    v, h = np.broadcast_arrays(np.asarray(realised, np.float64), np.asarray(forecast, np.float64))
    with np.errstate(all="ignore"):
        x = v / h
        return np.asarray(np.where((v > 0.0) & (h > 0.0) & np.isfinite(x), x - np.log(x) - 1.0, np.nan))


class Score(NamedTuple):
    """Mean QLIKE, root mean squared error of the variance, the rows scored and the rows left out."""

    qlike: float
    rmse: float
    rows: int
    left_out: int


def score(realised: ArrayLike, forecasts: Mapping[str, ArrayLike]) -> dict[str, Score]:
    """The scores of forecasts of the same rows, best first; a row counts only where every forecast and the proxy exist.

    Align before: a filter's row t is for t + 1, so pass `realised[1:]` and `filter[:-1]`. Shape: all (n,).
    Errors: ValueError where no row is left.
    """
    v = np.asarray(realised, np.float64)
    losses = {name: qlike(v, h) for name, h in forecasts.items()}
    good = np.all([np.isfinite(loss) for loss in losses.values()], axis=0)
    if not losses or not np.any(good):
        raise ValueError("score: expected rows where every forecast and the realised variance are positive, found none")
    rows = int(good.sum())
    found = {
        name: Score(
            qlike=float(loss[good].mean()),
            rmse=float(np.sqrt(np.mean(np.square(v[good] - np.asarray(forecasts[name], np.float64)[good])))),
            rows=rows,
            left_out=len(v) - rows,
        )
        for name, loss in losses.items()
    }
    return dict(sorted(found.items(), key=lambda item: item[1].qlike))


def diebold_mariano(loss: ArrayLike, other: ArrayLike, *, lags: int = 0) -> float:
    """The t statistic of the mean difference loss - other (Diebold and Mariano 1995), positive where `other` is better.

    The variance is Newey and West's (1987) with `lags` autocovariances; beyond 2 in size is news at 5%. Rows where either is
    unknown are left out. Shape: (n,) both. NaN where nothing varies.
    """
    d = np.asarray(loss, np.float64) - np.asarray(other, np.float64)
    d = d[np.isfinite(d)]
    if len(d) <= lags + 1:
        raise ValueError(f"diebold_mariano: expected more than {lags + 1} common rows, found {len(d)}")
    e = d - d.mean()
    total = float(e @ e) / len(d)
    for lag in range(1, lags + 1):
        total += 2.0 * (1.0 - lag / (lags + 1.0)) * float(e[lag:] @ e[:-lag]) / len(d)
    return float(d.mean() / np.sqrt(total / len(d))) if total > 0.0 else float("nan")
