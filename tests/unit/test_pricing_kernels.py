"""What holds for every compiled kernel: no library function, no contraction, no compile on a tick, no stale code, a twin."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bot.pricing import american, american_discrete, american_discrete_by_numpy, black, implied, legs

ROOT = Path(__file__).resolve().parents[2]

LISTING = r"""
import re
from bot.pricing import american_discrete_kernels, american_kernels, implied_kernels, kernels, leg_kernels
for kernel in (
    kernels.greeks_rows, kernels.net, implied_kernels.implied_rows, implied_kernels.implied_one,
    implied_kernels.implied_answer, leg_kernels.terms,
    american_kernels.put_rows, american_discrete_kernels.grid_price,
):
    asm = "".join(kernel.inspect_asm().values())
    fused = len(re.findall(r"\bvfn?m(?:add|sub)", asm))
    called = re.findall(r"\$(exp2?|log|log2|log10|log1p|expm1|erfc?|pow|sin|cos|tan|tanh)\b", asm)
    print(kernel.__name__, fused, len(called), len(asm) > 10_000)
"""


@pytest.mark.slow
def test_kernels_of_the_decision_path_call_no_library_and_contract_nothing(tmp_path: Path) -> None:
    """A fresh compile of each kernel an order depends on has no fused multiply-add and asks no library for a function."""
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", LISTING], env=env, check=True, capture_output=True, text=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 8
    assert [row[1:] for row in rows] == [["0", "0", "True"]] * 8, rows


BITS = """
import hashlib
import numpy as np
from bot.pricing import american, american_discrete, black, implied, legs

rng = np.random.default_rng(5)
n = 1_500


def powers(low, high, scale, power):
    u = rng.uniform(low, high, n)
    total = np.full(n, scale)
    for _ in range(power):  # products are the same anywhere, numpy's exp is not
        total = total * u
    return total


def show(name, *columns):
    digest = hashlib.sha256()
    for column in columns:
        values = np.asarray(column, dtype=np.float64)
        digest.update(np.where(np.isnan(values), -7.0, values).tobytes())
    print(name, digest.hexdigest())


S, K, T, v = rng.uniform(50, 200, n), rng.uniform(50, 200, n), powers(0.02, 1.0, 8.0, 4), powers(0.2, 1.0, 2.0, 3)
r, q, cp = rng.uniform(-0.05, 0.15, n), rng.uniform(-0.05, 0.15, n), rng.choice([-1.0, 1.0], n)
show("greeks", *black.greeks_slice(S, K, T, v, rate=r, dividend=q, cp=cp))
packed = np.stack([K, T * 3e16, v, cp, S], axis=1)[:200].copy()
show("net", black.slice_kernel()(100.0, 5, packed, 0.02, 0.01))
show("terms", legs.terms_kernel()(100.0, 5, packed, 0.02, 0.01))
s = 1e-7 + powers(0.0, 1.0, 8.0, 8)
strikes = S * (1.0 + rng.uniform(-1.0, 1.0, n) * np.minimum(2.0 * s, 0.9))
prices = black.greeks_slice(S, strikes, T, s / np.sqrt(T), cp=cp).price
show("implied", *implied.vol(prices, S, strikes, T, cp=cp))
for accuracy in ("default", "high"):
    rows = [column[:300] for column in (S, K, T, v, r, q, cp)]
    found = american.price(*rows[:4], rate=rows[4], dividend=rows[5], cp=rows[6], accuracy=accuracy)
    show("american", *found[:7])
for model in ("spot", "escrowed"):
    how = {"dividends": [(0.1, 1.0), (0.2, 2.0)], "model": model, "steps": 40}
    found = american_discrete.price(S[:4], K[:4], 0.5, v[:4], rate=r[:4], cp=cp[:4], **how)
    show("discrete", *found[:6])
"""


@pytest.mark.slow
def test_the_plainest_processor_gets_the_same_bits(tmp_path: Path) -> None:
    """Code for x86-64 without AVX, FMA or numpy's fast loops gives every output the bits that this machine's code gives."""
    plain = {
        "NUMBA_CACHE_DIR": str(tmp_path),
        "NUMBA_CPU_NAME": "x86-64",
        "NUMBA_CPU_FEATURES": "",
        "NPY_DISABLE_CPU_FEATURES": " ".join(_numpy_features()),
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F",
    }

    def run(**changes: str) -> list[str]:
        env = {**os.environ, **changes}
        done = subprocess.run([sys.executable, "-c", BITS], env=env, check=True, capture_output=True, text=True)
        return done.stdout.splitlines()

    here = run()
    assert len(here) == 8
    assert run(**plain) == here


def _numpy_features() -> list[str]:
    """What numpy found on this machine beyond what it needs."""
    config = np.show_config(mode="dicts")
    assert isinstance(config, dict)
    found: list[str] = config["SIMD Extensions"].get("found", [])
    return found


def test_every_kernel_of_pricing_is_compiled_in_one_place() -> None:
    """No module of pricing but `compiler.py` calls the compiler, so that every kernel has its edition and the same flags."""
    pricing = sorted((ROOT / "bot" / "pricing").glob("*.py"))
    own = [path.name for path in pricing if re.search(r"\b(?:njit|jit|vectorize|cfunc)\b\(", path.read_text("utf-8"))]
    assert own == ["compiler.py"]


def test_nothing_is_compiled_after_warm_up() -> None:
    """After the three warm-ups each call a tick can make runs code that is there: the compiler is not entered."""
    from numba.core import event  # noqa: PLC0415  the compiler, beside its only use

    black.warmup()
    implied.warmup()
    american.warmup()
    packed = black.pack_slice(strike=[90.0, 110.0], expiry=10**16, vol=0.2, cp=1, weight=1.0, epoch=0)
    strikes = np.linspace(80.0, 120.0, 5)
    frozen = strikes.astype(np.float32)
    frozen.flags.writeable = False
    with event.install_recorder("numba:compile") as seen:
        black.slice_kernel()(100.0, 5, packed, 0.01, 0.02)
        for given in (strikes, strikes[::-1], frozen, 100, np.float32(100.0)):
            black.greeks_slice(100.0, given, 0.5, 0.2, rate=0.01)
            implied.vol(9.0, 100.0, given, 0.5)
            american.price(100.0, given, 0.5, 0.2, rate=0.05, cp=-1)
            american.value(100.0, given, 20.0, 0.01, rate=0.05, dividend=0.1, cp=-1)
        implied.vol_one(4.0, 100.0, 100.0, 0.25)
        for number in (4.0, 4, np.float64(4.0), np.float32(4.0)):
            implied.vol(number, 100.0, 100.0, 0.25, cp=-1)
    assert seen.buffer == []


HELPER = """
from bot.pricing.compiler import inlined
SCALE = {scale}
@inlined
def scaled(x):
    return SCALE * x
"""
KERNEL = """
from bot.pricing.compiler import compiled
from bot.pricing.tiny_helper import scaled
@compiled("float64(float64)")
def kernel(x):
    return scaled(x) + 1.0
"""
RUN = "from bot.pricing import tiny_kernels as k; print(k.kernel(2.0), sum(k.kernel.stats.cache_hits.values()))"


def test_compiled_code_is_not_kept_where_a_helper_changed(tmp_path: Path) -> None:
    """Code from the cache is used again, but not after a helper in another file was edited, which the compiler does not see."""
    package = tmp_path / "bot" / "pricing"
    package.mkdir(parents=True)
    for name in ("bot/__init__.py", "bot/pricing/__init__.py", "bot/pricing/compiler.py"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (package / "tiny_kernels.py").write_text(KERNEL)
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("NUMBA_CACHE_DIR", None)

    def run(scale: float) -> str:
        (package / "tiny_helper.py").write_text(HELPER.format(scale=scale))
        command = [sys.executable, "-c", RUN]  # its folder comes first among the places packages are looked for
        done = subprocess.run(command, env=env, cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert run(3.0) == "7.0 0"
    assert run(3.0) == "7.0 1"
    assert run(5.0) == "11.0 0"
    assert run(3.0) == "7.0 1"


@pytest.mark.parametrize("cp", [1.0, -1.0])
@pytest.mark.parametrize("escrowed", [False, True])
@pytest.mark.parametrize("american_style", [True, False])
def test_the_grid_with_cash_dividends_is_its_readable_twin(cp: float, escrowed: bool, american_style: bool) -> None:
    """Price, delta, gamma and theta of the compiled grid are those of the numpy form, without, with one and two dividends."""
    from bot.pricing import american_discrete_kernels as kernels  # noqa: PLC0415  the compiler, beside its only use

    contracts = [
        (100.0, 100.0, 0.5, 0.25, 0.05, 0.0),
        (90.0, 110.0, 0.45, 0.6, 0.02, 0.03),
        (130.0, 80.0, 0.6, 0.1, -0.01, 0.0),
    ]
    paid = [[], [(0.2, 2.0)], [(0.1, 1.0), (0.3, 3.0)]]
    for (S, K, T, v, r, q), dividends in itertools.product(contracts, paid):
        times, amounts = np.array([t for t, _ in dividends]), np.array([amount for _, amount in dividends])
        out = np.empty(4)
        kernels.grid_price(S, K, T, v, r, q, cp, times, amounts, escrowed, american_style, 120, 60, out)
        option = american_discrete_by_numpy.Option(S, K, T, v, r, q, cp, times, amounts, escrowed, american_style)
        twin = american_discrete_by_numpy.grid_price(option, 120, 60)
        np.testing.assert_allclose(out, twin, rtol=0.0, atol=2e-10)


def test_a_grid_row_alone_is_its_row_in_a_batch() -> None:
    """Prices with cash dividends have the same bits alone and beside bad rows."""
    spots = np.array([100.0, np.nan, 90.0, -1.0, 100.0])
    tau = np.array([0.5, 0.5, 0.25, 0.5, -0.1])
    how = {"rate": 0.03, "cp": -1, "dividends": [(0.2, 1.0)], "model": "spot", "steps": 50}
    batch = american_discrete.price(spots, 100.0, tau, 0.3, **how)  # type: ignore[arg-type]  # one dict of all kinds
    for i in range(spots.size):
        alone = american_discrete.price(spots[i], 100.0, tau[i], 0.3, **how)  # type: ignore[arg-type]  # as above
        for column, one in zip(batch, alone, strict=True):
            np.testing.assert_array_equal(column[i], one)


def test_terms_of_a_slice_are_those_of_the_formula_at_the_ends() -> None:
    """Time and vol of a slice agree with the readable form for contracts at expiry, gone, without vol and without gamma."""
    rows = [
        (100.0, 1e15, 0.2, 1.0),
        (90.0, 0.0, 0.3, -1.0),
        (100.0, -5.0, 0.5, 1.0),
        (120.0, 2e15, 0.0, 2.0),
        (1e6, 1e13, 0.1, 1.0),
    ]
    for size in range(1, len(rows) + 1):
        for chosen in itertools.combinations(rows, size):
            packed = np.array([(K, expiry, vol, 1.0, weight) for K, expiry, vol, weight in chosen])
            fast = legs.terms_kernel()(100.0, 0, packed, 0.02, 0.01)
            slow = legs.terms_by_formula(100.0, 0, packed, 0.02, 0.01)
            np.testing.assert_allclose(fast, slow, rtol=1e-9, err_msg=str(chosen))
