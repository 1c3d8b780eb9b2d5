"""Curves: discounts between nodes, forwards with dividends, and the forward a chain implies however bad some quotes are."""

from __future__ import annotations

import numpy as np
import pytest

from bot.pricing import black, curve


def _chain(seed: int, *, forward: float = 3000.0, discount: float = 0.98, tau: float = 0.25) -> curve.Pairs:
    """A chain with a smile and spreads that widen from the money; quotes on both sides of the model price."""
    rng = np.random.default_rng(seed)
    K = np.arange(2000.0, 4001.0, 25.0)
    vol = 0.2 - 0.3 * np.log(K / forward)
    sides = []
    for cp in (1, -1):
        mid = black.black76(forward, K, tau, vol, discount=discount, cp=cp).price
        half = 0.1 + 0.01 * mid
        middle = mid + rng.uniform(-0.3, 0.3, len(K)) * half
        sides += [middle - half, middle + half]
    return curve.Pairs(K, *sides)


def test_discounts_pass_through_nodes_and_stay_flat_in_forward_rates() -> None:
    """Zero rates come back at the nodes; between them the forward rate is constant, beyond them the last one goes on."""
    c = curve.from_zeros([0.5, 1.0, 3.0], [0.05, 0.04, 0.03])
    np.testing.assert_allclose(c.zero([0.5, 1.0, 3.0]), [0.05, 0.04, 0.03], rtol=1e-15)
    np.testing.assert_allclose(c.forward_rate([1.0, 1.7, 3.0], [2.0, 2.1, 9.0]), [0.025, 0.025, 0.025], rtol=1e-12)
    np.testing.assert_allclose(c.zero([0.0, 0.1]), [0.05, 0.05], rtol=1e-15)
    assert np.isnan(c.discount(-0.1))
    assert np.isnan(c.discount(float("nan")))
    assert np.isnan(c.forward_rate(1.0, 1.0))


def test_compounding_conventions_meet_in_the_discount() -> None:
    """Simple, semi-annual, annual and continuous quotes of one discount factor give it back, and so do discounts."""
    for curve_ in (
        curve.from_zeros([2.0], [0.05], per_year=0),
        curve.from_zeros([2.0], [2.0 * (1.1**0.25 - 1.0)], per_year=2),
        curve.from_zeros([2.0], [1.1**0.5 - 1.0], per_year=1),
        curve.from_zeros([2.0], [np.log(1.1) / 2.0]),
        curve.from_discounts([2.0], [1.0 / 1.1]),
    ):
        assert float(curve_.discount(2.0)) == pytest.approx(1.0 / 1.1, rel=1e-14)


@pytest.mark.parametrize(
    ("tau", "rate"), [((), ()), ((1.0,), (0.1, 0.2)), ((0.0,), (0.1,)), ((2.0, 1.0), (0.1, 0.1)), ((1.0,), (np.nan,))]
)
def test_an_impossible_curve_is_refused(tau: tuple[float, ...], rate: tuple[float, ...]) -> None:
    """Maturities must rise from above zero and rates be finite, one each."""
    with pytest.raises(ValueError, match="Curve"):
        curve.Curve(tau=tau, rate=rate)


def test_rates_that_wipe_out_and_factors_below_zero_are_refused() -> None:
    """A compounding rate of -200%, a negative count and a negative discount factor have no continuous rate."""
    with pytest.raises(ValueError, match="rate"):
        curve.from_zeros([1.0], [-2.0], per_year=1)
    with pytest.raises(ValueError, match="per_year"):
        curve.from_zeros([1.0], [0.1], per_year=-1)
    with pytest.raises(ValueError, match="discount"):
        curve.from_discounts([1.0], [-0.5])


def test_forward_equals_the_value_of_cash_and_carry() -> None:
    """Buying the share on credit, taking its dividends as they come and delivering it earns nothing."""
    rates, borrow, q = curve.from_zeros([0.5, 2.0], [0.05, 0.03]), curve.flat(0.01), curve.flat(0.02)
    carry = curve.Carry(
        rates=rates, dividend=q, borrow=borrow, cash=((0.3, 1.5), (0.9, 2.0)), proportional=((0.6, 0.1),)
    )
    cash_account, shares = -100.0, 1.0
    at = 0.0
    for when, amount, share in ((0.3, 1.5, 0.0), (0.6, 0.0, 0.1), (0.9, 2.0, 0.0), (1.0, 0.0, 0.0)):
        cash_account *= float(rates.discount(at) / rates.discount(when))
        shares *= np.exp(0.03 * (when - at))
        cash_account += shares * amount
        shares /= 1.0 - share
        at = when
    assert float(carry.forward(100.0, 1.0)) == pytest.approx(-cash_account / shares, rel=1e-12)


def test_dividends_count_from_their_ex_date_on() -> None:
    """A dividend already paid, or due today, is not in the forward; one due at the maturity is."""
    carry = curve.Carry(cash=((-0.1, 9.0), (0.0, 9.0), (0.5, 3.0)), proportional=((0.0, 0.5),))
    assert carry.forward(100.0, [0.0, 0.49, 0.5]).tolist() == [100.0, 100.0, 97.0]
    assert np.isnan(carry.forward(2.0, 0.6))
    assert float(carry.escrowed(100.0, 1.0)) == 97.0
    with pytest.raises(ValueError, match="proportional"):
        curve.Carry(proportional=((0.5, 1.0),))
    with pytest.raises(ValueError, match="cash"):
        curve.Carry(cash=((0.5, float("inf")),))


def test_parity_gives_forward_and_discount_back() -> None:
    """A chain without noise gives both to rounding, and fits inside every spread."""
    K = np.array([80.0, 90.0, 100.0, 110.0])
    y = 0.95 * (103.0 - K)
    fit = curve.imply_forward(K, 30.0 + y - 0.05, 30.0 + y + 0.05, 0 * K + 29.95, 0 * K + 30.05, tau=0.5)
    assert (fit.forward, fit.discount, fit.rate) == pytest.approx((103.0, 0.95, -2.0 * np.log(0.95)), rel=1e-12)
    assert fit.inside == 1.0
    assert fit.used == 4
    assert fit.slack > 0.0


@pytest.mark.parametrize("seed", range(6))
def test_bad_quotes_lose_their_vote(seed: int) -> None:
    """With a third of the strikes stale, crossed or one-sided the forward stays within four of its standard errors."""
    K, cb, ca, pb, pa = _chain(seed)
    rng = np.random.default_rng(100 + seed)
    bad = rng.permutation(len(K))[:27]
    cb[bad[:9]] += 40.0
    ca[bad[:9]] += 40.0  # stale calls from a higher market
    cb[bad[9:15]] = ca[bad[9:15]] + 1.0  # crossed
    pb[bad[15:21]] = 0.0  # one-sided
    pa[bad[21:27]] = np.nan
    for discount in (None, 0.98):
        fit = curve.imply_forward(K, cb, ca, pb, pa, tau=0.25, discount=discount)
        assert fit.ok
        assert abs(fit.forward - 3000.0) <= 4.0 * fit.forward_error + 0.02
        assert abs(fit.discount - 0.98) <= 4.0 * fit.discount_error + 1e-12
        assert 1 <= fit.refused["crossed"] <= 6
        assert fit.refused["one_sided"] >= 12
        assert (fit.weight[bad] <= 0.02).all()
        assert fit.inside < 1.0


def test_near_the_money_only_ignores_what_lies_far() -> None:
    """American chains depart from parity away from the money; `near` takes the strikes about the forward."""
    K, cb, ca, pb, pa = _chain(3)
    early = 0.02 * np.maximum(K - 3000.0, 0.0)  # what early exercise adds to puts in the money
    wide = curve.imply_forward(K, cb, ca, pb + early, pa + early, discount=0.98)
    near = curve.imply_forward(K, cb, ca, pb + early, pa + early, discount=0.98, near=0.02)
    assert abs(near.forward - 3000.0) < 0.5
    assert abs(near.forward - 3000.0) <= abs(wide.forward - 3000.0) + 0.2
    assert near.refused["far"] > 60


def test_a_chain_without_enough_strikes_says_so() -> None:
    """No forward is made of nothing; one strike is enough where the discount is known, and none where it is not."""
    one = (np.array([100.0]), [5.0], [5.2], [4.0], [4.2])
    assert not curve.imply_forward(*one).ok
    assert curve.imply_forward(*one, discount=1.0).forward == pytest.approx(101.0)
    empty = np.empty(0)
    assert not curve.imply_forward(empty, empty, empty, empty, empty).ok
    assert not curve.imply_forward([np.nan, 1.0], [1, 0], [2, 2], [1, 1], [2, 2], discount=1.0).ok
    with pytest.raises(ValueError, match="one length"):
        curve.imply_forward([1.0, 2.0], [1.0], [1.0], [1.0], [1.0])
    with pytest.raises(ValueError, match="discount"):
        curve.imply_forward(*one, discount=-1.0)


def test_locked_strikes_are_not_believed_without_bound() -> None:
    """A locked and wrong strike between sound ones does not drag the forward to itself."""
    K, cb, ca, pb, pa = _chain(5)
    cb[10] = ca[10] = ca[10] + 25.0
    pb[10] = pa[10]
    assert curve.imply_forward(K, cb, ca, pb, pa).forward == pytest.approx(3000.0, abs=0.5)


def test_rows_of_a_chain_become_one_row_a_strike() -> None:
    """Calls and puts are matched by strike, a missing contract is NaN."""
    pairs = curve.put_call_pairs([100.0, 90.0, 100.0], [1.0, 2.0, 3.0], [1.5, 2.5, 3.5], [1, 1, -1])
    assert pairs.strike.tolist() == [90.0, 100.0]
    assert pairs.call_bid.tolist() == [2.0, 1.0]
    assert np.isnan(pairs.put_bid[0])
    assert pairs.put_ask[1] == 3.5
