"""How fast prices, Greeks and implied vols are, as ratios to peers measured in the same run, one thread, medians.

Peers that are not installed are left out and named: numpy with scipy.special.ndtr is always there; QuantLib comes with the
extra `dev`, fast_vollib and py_lets_be_rational with the extra `bench`. Each peer is called as its users call it, with its
fastest backend held to one thread, and each answer is checked before it is timed. Prints one JSON document.

    python benchmarks/pricing.py [--rows 1000000] [--repeats 7]
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from scipy.special import ndtr

from bot.pricing import black, implied

PHI_0 = 0.3989422804014327


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
    """The median CPU time of a call, after one that is not counted."""
    run()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def peer(name: str) -> ModuleType | None:
    """An optional peer, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def contracts(rows: int) -> dict[str, np.ndarray]:
    """A seeded book: spot 100, strikes 60 to 150, 4 days to 2 years, vols 5% to 80%."""
    rng = np.random.default_rng(1)
    return {
        "spot": np.full(rows, 100.0),
        "strike": rng.uniform(60, 150, rows),
        "tau": rng.uniform(0.01, 2, rows),
        "vol": rng.uniform(0.05, 0.8, rows),
        "cp": rng.choice([-1.0, 1.0], rows),
    }


def by_numpy(spot: Any, strike: Any, tau: Any, vol: Any, cp: Any, rate: float, dividend: float) -> tuple[Any, ...]:
    """The five outputs in whole-array numpy with scipy's normal distribution."""
    root = np.sqrt(tau)
    w = vol * root
    d1 = (np.log(spot / strike) + (rate - dividend) * tau) / w + 0.5 * w
    d2 = d1 - w
    s, k = spot * np.exp(-dividend * tau), strike * np.exp(-rate * tau)
    above, below = ndtr(cp * d1), ndtr(cp * d2)
    density = s * (PHI_0 * np.exp(-0.5 * d1 * d1))
    price = cp * (s * above - k * below)
    delta = cp * above * (s / spot)
    gamma = density / (spot * spot * w)
    theta = cp * (dividend * s * above - rate * k * below) - density * vol / (2.0 * root)
    return price, delta, gamma, density * root, theta


def five_outputs(rows: int, repeats: int) -> dict[str, Any]:
    """Nanoseconds a contract for price, delta, gamma, vega and theta."""
    book = contracts(rows)
    rate, dividend = 0.03, 0.01
    out = np.empty((5, rows))

    def ours() -> black.SliceGreeks:
        return black.greeks_slice(**book, rate=rate, dividend=dividend, out=out)

    def numpy_whole() -> tuple[Any, ...]:
        return by_numpy(**book, rate=rate, dividend=dividend)

    for mine, theirs in zip(ours(), numpy_whole(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-11)
    result: dict[str, Any] = {"evenkeel_ns": median_seconds(ours, repeats) / rows * 1e9}
    result["numpy_ns"] = median_seconds(numpy_whole, repeats) / rows * 1e9
    fast_vollib = peer("fast_vollib")
    if fast_vollib is not None:
        result.update(by_fast_vollib(fast_vollib, book, rate, dividend, out))
    ql = peer("QuantLib")
    if ql is not None:
        some = min(rows, 20_000)
        columns = zip(*(book[name][:some].tolist() for name in ("strike", "tau", "vol", "cp")), strict=True)
        cases = [(ql.PlainVanillaPayoff(1 if cp > 0 else -1, K), T, v) for K, T, v, cp in columns]

        def quantlib() -> None:
            for payoff, T, v in cases:
                forward, discount = 100.0 * np.exp((rate - dividend) * T), np.exp(-rate * T)
                one = ql.BlackCalculator(payoff, float(forward), float(v * T**0.5), float(discount))
                one.value(), one.delta(100.0), one.gamma(100.0), one.vega(T), one.theta(100.0, T)

        result["quantlib_ns"] = median_seconds(quantlib, 3) / some * 1e9
    return with_ratios(result)


def by_fast_vollib(
    peer: ModuleType, book: dict[str, np.ndarray], rate: float, dividend: float, out: np.ndarray
) -> dict[str, float]:
    """Nanoseconds a contract of fast_vollib's numba backend on one thread, checked against `out`.

    Its users ask for one output a call; or for all Greeks in one call, which shares their work, and the price in another.
    """
    on_one_thread()
    rows = book["spot"].size
    flags = np.where(book["cp"] > 0, "c", "p")
    r, q = np.full(rows, rate), np.full(rows, dividend)
    args = (flags, book["spot"], book["strike"], book["tau"], r, book["vol"], q)
    how = {"return_as": "numpy", "backend": "numba"}
    model = {"model": "black_scholes_merton"}
    names = ("delta", "gamma", "vega", "theta")

    def five_calls() -> list[Any]:
        greeks = [getattr(peer, f"vectorized_{name}")(*args, **model, **how) for name in names]
        return [peer.fast_black_scholes_merton(*args, **how), *greeks]

    def two_calls() -> list[Any]:
        greeks = peer.get_all_greeks(*args, **model, return_as="dict", backend="numba")
        return [peer.fast_black_scholes_merton(*args, **how), *(greeks[name] for name in names)]

    for answer in (five_calls(), two_calls()):  # its vega is per point of vol, its theta per day
        for theirs, mine, unit in zip(answer, out, (1.0, 1.0, 1.0, 100.0, 365.0), strict=True):
            np.testing.assert_allclose(np.asarray(theirs) * unit, mine, rtol=1e-7, atol=1e-9)
    return {
        "fast_vollib_ns": median_seconds(five_calls, 3) / rows * 1e9,
        "fast_vollib_in_two_calls_ns": median_seconds(two_calls, 3) / rows * 1e9,
    }


def on_one_thread() -> None:
    """Hold numba's parallel loops, which fast_vollib uses, to one thread: CPU time counts all of them."""
    import numba  # noqa: PLC0415  only where a peer uses it

    numba.set_num_threads(1)


def quotes(rows: int) -> dict[str, np.ndarray]:
    """Seeded out-of-the-money quotes on a forward of 100: strikes 30% around it, a day to 2 years, vols 5% to 100%."""
    rng = np.random.default_rng(2)
    K = 100.0 * np.exp(rng.normal(0, 0.3, rows))
    T, v = rng.uniform(1 / 365, 2, rows), rng.uniform(0.05, 1.0, rows)
    cp = np.where(K > 100.0, 1.0, -1.0)
    price = black.black76(100.0, K, T, v, cp=cp).price
    kept = price > 1e-12
    return {"price": price[kept], "strike": K[kept], "tau": T[kept], "cp": cp[kept], "vol": v[kept]}


def implied_batch(rows: int, repeats: int) -> dict[str, Any]:
    """Nanoseconds a quote for implied vols of out-of-the-money quotes, and the greatest errors."""
    q = quotes(rows)
    price, K, T, cp = q["price"], q["strike"], q["tau"], q["cp"]
    F = np.full(price.size, 100.0)

    def ours() -> implied.ImpliedVol:
        return implied.vol(price, F, K, T, cp=cp)

    result: dict[str, Any] = {
        "rows": int(price.size),
        "max_error": float(np.abs(ours().vol - q["vol"]).max()),
        "evenkeel_ns": median_seconds(ours, repeats) / price.size * 1e9,
    }
    jaeckel = peer("fast_vollib.jackel")
    if jaeckel is not None:
        on_one_thread()

        def theirs() -> Any:
            return jaeckel.jackel_iv_black(price, F, K, T, cp > 0)

        result["max_error_of_fast_vollib"] = float(np.abs(theirs() - q["vol"]).max())
        result["fast_vollib_jackel_ns"] = median_seconds(theirs, 3) / price.size * 1e9
    return with_ratios(result)


def one_at_a_time(repeats: int) -> dict[str, Any]:
    """Nanoseconds a call from Python for the implied vol of one quote, over quotes that differ, and the greatest error.

    `vol_one` is the call for one quote; `vol` takes arrays as well and answers numpy scalars; the kernel is `vol_one` without
    its frame.
    """
    q = quotes(2_500)
    columns = (q["price"].tolist(), q["strike"].tolist(), q["tau"].tolist(), q["cp"].tolist())
    rows = list(zip(*columns, strict=True))
    one, many, kernel = implied.vol_one, implied.vol, implied.quote_kernel()

    def through_one() -> None:
        for price, strike, tau, cp in rows:
            one(price, 100.0, strike, tau, 1.0, cp)

    def through_kernel() -> None:
        for price, strike, tau, cp in rows:
            kernel(price, 100.0, strike, tau, 1.0, cp)

    def through_vol() -> None:
        for price, strike, tau, cp in rows:
            many(price, 100.0, strike, tau, cp=cp)

    def one_again() -> None:
        for _ in rows:
            one(4.0, 100.0, 103.0, 0.25)

    found = np.array([one(price, 100.0, strike, tau, 1.0, cp)[0] for price, strike, tau, cp in rows])
    result: dict[str, Any] = {
        "max_error": float(np.abs(found - q["vol"]).max()),
        "evenkeel_ns": median_seconds(through_one, repeats) / len(rows) * 1e9,
        "quote_kernel_wrapper_ns": median_seconds(through_kernel, repeats) / len(rows) * 1e9,
        "implied_vol_wrapper_ns": median_seconds(through_vol, repeats) / len(rows) * 1e9,
        "one_quote_again_wrapper_ns": median_seconds(one_again, repeats) / len(rows) * 1e9,
    }
    lets_be_rational = peer("py_lets_be_rational")
    if lets_be_rational is not None:
        theirs = lets_be_rational.implied_volatility_from_a_transformed_rational_guess

        def rational() -> None:
            for price, strike, tau, cp in rows:
                theirs(price, 100.0, strike, tau, cp)

        def rational_again() -> None:
            for _ in rows:
                theirs(4.0, 100.0, 103.0, 0.25, 1.0)

        found = np.array([theirs(price, 100.0, strike, tau, cp) for price, strike, tau, cp in rows])
        result["max_error_of_py_lets_be_rational"] = float(np.abs(found - q["vol"]).max())
        result["py_lets_be_rational_ns"] = median_seconds(rational, 3) / len(rows) * 1e9
        result["implied_vol_times_faster_than_py_lets_be_rational"] = (
            result["py_lets_be_rational_ns"] / result["implied_vol_wrapper_ns"]
        )
        result["py_lets_be_rational_one_quote_again_wrapper_ns"] = median_seconds(rational_again, 3) / len(rows) * 1e9
    return with_ratios(result)


def two_threads(rows: int, repeats: int) -> dict[str, Any]:
    """Wall time of one thread over that of two, by kernel, and whether both give the same bits.

    The best of the repeats, since another process on either core counts against two threads.
    """
    book, q = contracts(rows), quotes(rows)
    tables = [np.empty((5, rows)) for _ in range(2)]

    def five(threads: int) -> np.ndarray:
        black.greeks_slice(**book, rate=0.03, dividend=0.01, out=tables[threads - 1], threads=threads)
        return tables[threads - 1]

    def vols(threads: int) -> np.ndarray:
        return implied.vol(q["price"], 100.0, q["strike"], q["tau"], cp=q["cp"], threads=threads).vol

    result: dict[str, Any] = {}
    for name, run in (("five_outputs", five), ("implied_batch", vols)):
        result[f"{name}_same_bits"] = bool(np.array_equal(run(1), run(2)))
        taken: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(repeats):
            for threads, times in taken.items():
                start = time.perf_counter()
                run(threads)
                times.append(time.perf_counter() - start)
        result[f"{name}_times_faster"] = round(min(taken[1]) / min(taken[2]), 3)
    return result


def slices(repeats: int) -> dict[str, float]:
    """Microseconds for the net delta and gamma of a slice in one call, by number of contracts."""
    rng = np.random.default_rng(3)
    net = black.slice_kernel()
    result = {}
    for count in (1, 16, 128, 1024):
        packed = black.pack_slice(
            strike=rng.uniform(60, 150, count),
            expiry=rng.integers(10**15, 6 * 10**16, count),
            vol=rng.uniform(0.05, 0.8, count),
            cp=1,
            weight=1.0,
            epoch=0,
        )

        def run(packed: Any = packed) -> None:
            for _ in range(2_000):
                net(100.0, 0, packed, 0.03, 0.01)

        result[str(count)] = median_seconds(run, repeats) / 2_000 * 1e6
    return result


def seconds_in_new_process(code: str) -> float:
    """The best of three wall times that `code`, which prints them, measures in a process of its own."""
    runs = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True) for _ in range(3)]
    return min(float(run.stdout) for run in runs)


def starts() -> dict[str, float]:
    """Seconds to import and to warm up from the cache, each in a new process."""
    clock = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
    return {
        "import_numpy_s": seconds_in_new_process(clock.format("import numpy")),
        "import_pricing_s": seconds_in_new_process(
            clock.format("import bot.pricing, bot.pricing.black, bot.pricing.implied")
        ),
        "warmup_s": seconds_in_new_process("from bot.pricing import black; " + clock.format("black.warmup()")),
        "warmup_with_implied_s": seconds_in_new_process(
            "from bot.pricing import black, implied; " + clock.format("black.warmup(); implied.warmup()")
        ),
    }


def with_ratios(result: dict[str, Any]) -> dict[str, Any]:
    """The result with each peer's time over ours beside it."""
    ours = result["evenkeel_ns"]
    peers = [name for name in result if name.endswith("_ns") and name != "evenkeel_ns" and "wrapper" not in name]
    ratios = {f"times_faster_than_{name.removesuffix('_ns')}": result[name] / ours for name in peers}
    return {name: round(value, 16 if value < 1e-6 else 3) for name, value in {**result, **ratios}.items()}


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    black.warmup()
    implied.warmup()
    document = {
        "peers_missing": [name for name in ("fast_vollib", "py_lets_be_rational", "QuantLib") if peer(name) is None],
        "five_outputs": five_outputs(args.rows, args.repeats),
        "implied_batch": implied_batch(args.rows, args.repeats),
        "implied_one": one_at_a_time(args.repeats),
        "two_threads": two_threads(args.rows, args.repeats),
        "slice_us": {name: round(value, 3) for name, value in slices(args.repeats).items()},
        "start": {name: round(value, 3) for name, value in starts().items()},
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
