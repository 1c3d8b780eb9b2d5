"""The compiled American kernel against its readable twin, row by row, and the vector code that makes it fast."""

from __future__ import annotations

import numpy as np
import pytest

from bot.pricing import american, american_by_numpy, american_kernels
from bot.pricing.black import Array


def puts(seed: int, n: int) -> Array:
    """Rows of puts of strike 1 that have one boundary: spot, tau, r, q, vol, side. Shape: (6, n)."""
    rng = np.random.default_rng(seed)
    r = rng.uniform(0.001, 0.12, n)
    q = rng.uniform(-0.02, 0.12, n) * (rng.random(n) > 0.2)
    tau = np.exp(rng.uniform(np.log(0.01), np.log(3.0), n))
    vol = np.exp(rng.uniform(np.log(0.05), np.log(0.9), n))
    return np.stack([rng.uniform(0.6, 1.6, n), tau, r, q, vol, rng.choice([-1.0, 1.0], n)])


@pytest.mark.parametrize("accuracy", ["fast", "default", "high"])
def test_the_kernel_is_its_twin(accuracy: str) -> None:
    """Price, Greeks and boundary of 150 random puts agree with the numpy form to rounding."""
    rows = puts(16, 150)
    scheme = american.scheme_of(accuracy)
    out, ln_b = np.empty((6, rows.shape[1])), np.empty((rows.shape[1], scheme.nodes.size))
    american_kernels.put_rows(rows, *scheme, True, out, ln_b)
    twin, twin_b = american_by_numpy.put_rows(rows, scheme, greeks=True)
    assert np.abs((out - twin) / (1.0 + np.abs(twin))).max() < 1e-12
    assert np.abs(ln_b - twin_b).max() < 1e-10


def test_the_twin_prices_alone() -> None:
    """Without Greeks kernel and twin give the same prices as with them."""
    rows = puts(17, 40)
    scheme = american.scheme_of("default")
    out, ln_b = np.empty((6, rows.shape[1])), np.empty((rows.shape[1], scheme.nodes.size))
    american_kernels.put_rows(rows, *scheme, True, out, ln_b)
    alone = np.empty_like(out)
    american_kernels.put_rows(rows, *scheme, False, alone, ln_b)
    twin, _ = american_by_numpy.put_rows(rows, scheme, greeks=False)
    assert np.array_equal(alone[0], out[0])
    assert np.abs(alone[0] - twin[0]).max() < 1e-12
    assert np.isnan(twin[1:]).all()


@pytest.mark.parametrize("count", [1, 31, 32, 33, 511, 512, 513, 1100])
def test_any_count_of_rows(count: int) -> None:
    """Blocks and chunks leave no seam: the last row of any count has the bits that it has alone."""
    rows = puts(18, 1100)[:, :count]
    scheme = american.scheme_of("default")
    out, ln_b = np.empty((6, count)), np.empty((count, scheme.nodes.size))
    american_kernels.put_rows(np.ascontiguousarray(rows), *scheme, True, out, ln_b)
    for at in {0, count // 2, count - 1}:
        one, one_b = np.empty((6, 1)), np.empty((1, scheme.nodes.size))
        american_kernels.put_rows(np.ascontiguousarray(rows[:, at : at + 1]), *scheme, True, one, one_b)
        assert np.array_equal(one[:, 0], out[:, at])
        assert np.array_equal(one_b[0], ln_b[at])
