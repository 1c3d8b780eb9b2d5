"""Closed-form policies give the numbers of their formulas, keep their limits, and answer arrays as they answer numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from bot.core.ports import Band, BandInput, HedgePlan, HedgePolicy, LegInput, Prepares, ShapesDelta
from bot.domain.units import NEVER, NS_PER_DAY, NS_PER_MINUTE, NS_PER_YEAR
from bot.pricing import black, sabr
from bot.pricing.legs import terms_by_formula, terms_kernel
from bot.testing.contracts import PolicyContract
from strategies.policies.almgren_li_speed import AlmgrenLiSpeed, almgren_li_kappa, share_of_gap
from strategies.policies.aversion import risk_aversion_of
from strategies.policies.bartlett_delta import BartlettDelta
from strategies.policies.callable_band import CallableBand
from strategies.policies.decide import decide
from strategies.policies.delta_band import DeltaBand
from strategies.policies.fixed_fee_band import FixedFeeBand, fixed_fee_lines
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.hoggard_whalley_wilmott import HoggardWhalleyWilmott
from strategies.policies.leland_delta import LelandDelta
from strategies.policies.min_var_delta import MinVarDelta
from strategies.policies.modified_vol import delta_at, leland_vol, zakamouline_vol
from strategies.policies.move_band import MoveBand
from strategies.policies.pin_guard import PinGuard, is_pinned
from strategies.policies.reach import Reach, reach_of, within_reach
from strategies.policies.whalley_wilmott import WhalleyWilmott, whalley_wilmott_width
from strategies.policies.zakamouline import Zakamouline, zakamouline_widths

INF = math.inf
NS_PER_HOUR = 60 * NS_PER_MINUTE
BAND = DeltaBand(half_width=10.0)


def straight(x: BandInput) -> tuple[Any, Any, Any]:
    """A user's own rule."""
    return x.want - 3.0, x.want + 3.0, x.want


POLICIES: list[HedgePolicy] = [
    MoveBand(pct=0.5),
    MoveBand(deviations=1.0, per="1h"),
    LelandDelta(interval="1h"),
    HoggardWhalleyWilmott(interval="1h"),
    WhalleyWilmott(risk_aversion=0.1),
    WhalleyWilmott(risk_aversion=0.1, to="centre"),
    FixedFeeBand(fee=2.0, risk_aversion=0.1),
    FixedFeeBand(fee=0.0, risk_aversion=0.1),
    Zakamouline(risk_aversion=0.1),
    Zakamouline(risk_aversion=0.1, to="centre"),
    AlmgrenLiSpeed(impact=1e-4, risk_aversion=0.1, interval="1h"),
    AlmgrenLiSpeed(impact=1e-4, risk_aversion=0.1, interval="1h", horizon="6h"),
    MinVarDelta(inner=WhalleyWilmott(risk_aversion=0.1), a=0.1, b=-0.2, c=0.1),
    BartlettDelta(inner=BAND, rho=-0.5, nu=0.8, beta=0.5),
    PinGuard(inner=BAND, within="1d", distance=1.0, action="half"),
    CallableBand(function=straight),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.name)
@pytest.mark.parametrize("law", [name for name in dir(PolicyContract) if name.startswith("test_")])
def test_the_contract_of_policies_holds(policy: HedgePolicy, law: str) -> None:
    """Each policy passes the contract suite that plug-in authors are given: one band, pure, arrays as floats."""
    suite = PolicyContract()
    suite.make_policy = lambda: policy  # type: ignore[method-assign]  # the suite asks its subclass; this is one
    getattr(suite, law)()


def seen(**changes: Any) -> BandInput:
    known: dict[str, Any] = {
        "now": NS_PER_DAY, "spot": 100.0, "want": -5.3, "held": -2.0, "gamma": -4.0, "tau": 0.25, "vol": 0.2,
        "rate": 0.0, "per_contract": 1.0, "cost": 0.002, "last_hedge_ts": 0, "last_hedge_spot": 100.0,
    }  # fmt: skip
    return BandInput(**(known | changes))


def legs(**changes: Any) -> LegInput:
    """Two legs: a written call at the money and a bought put below it."""
    known: dict[str, Any] = {
        "spot": 100.0, "strike": np.array([100.0, 90.0]), "tau": np.array([0.25, 0.5]), "vol": np.array([0.2, 0.25]),
        "rate": 0.01, "dividend": 0.0, "cp": np.array([1.0, -1.0]), "weight": np.array([-100.0, 50.0]), "cost": 0.002,
    }  # fmt: skip
    known |= changes
    g = black.greeks_slice(
        known["spot"], known["strike"], known["tau"], known["vol"], rate=known["rate"],
        dividend=known["dividend"], cp=known["cp"],
    )  # fmt: skip
    made = {"delta": g.delta, "gamma": g.gamma, "vega": g.vega, "net_gamma": (g.gamma * known["weight"]).sum(-1)}
    return LegInput(**(made | known))


GAMMA = float(black.bsm(100.0, 100.0, 0.25, 0.2).gamma)
POINT: dict[str, Any] = {"spot": 100.0, "gamma": -GAMMA, "tau": 0.25, "rate": 0.0, "cost": 0.01, "risk_aversion": 1.0}

# --------------------------------------------------------------------------- numbers of the formulas


def test_the_published_point_of_whalley_and_wilmott() -> None:
    """At lam 1%, g 1, S = K = 100, T = .25, vol .2 the half width is .133539."""
    assert whalley_wilmott_width(**POINT) == pytest.approx(0.133539, abs=1e-6)


def test_the_published_point_of_zakamouline() -> None:
    """At the same point the modified vol is .244526, H1 .074824 and H0 .010000."""
    H1, H0 = zakamouline_widths(vol=0.2, **POINT)
    assert (pytest.approx(0.074824, abs=1e-6), pytest.approx(0.01, abs=1e-6)) == (H1, H0)
    point = {key: value for key, value in POINT.items() if key != "cost"}
    assert zakamouline_vol(0.2, 0.01, **point) == pytest.approx(0.244526, abs=1e-6)


@pytest.mark.parametrize(
    ("cost", "dt", "vol"), [(0.0005, 1 / 252, 0.20624), (0.0025, 1 / 52, 0.21390), (0.0025, 1 / 252, 0.22949)]
)
def test_the_published_vols_of_leland(cost: float, dt: float, vol: float) -> None:
    """5 bp daily, 25 bp weekly and 25 bp daily raise a vol of .2 to .20624, .21390 and .22949."""
    assert leland_vol(0.2, cost, dt=dt) == pytest.approx(vol, abs=1e-5)


def test_the_band_of_another_implementation() -> None:
    """Whalley and Wilmott's next hedges in the documentation of pfhedge: .2946, .5, .5, .5, .7284."""
    spot = np.exp(np.array([-0.05, -0.01, 0.0, 0.01, 0.05]))
    g = black.bsm(spot, 1.0, 0.1, 0.2)
    assert g.delta == pytest.approx([0.2239, 0.4497, 0.5126, 0.5752, 0.7945], abs=5e-5)
    x = seen(spot=spot, want=g.delta, held=0.5, gamma=g.gamma, tau=0.1, cost=1e-5)
    band = WhalleyWilmott(risk_aversion=1.0).band(x)
    assert np.clip(0.5, band.lo, band.hi) == pytest.approx([0.2946, 0.5, 0.5, 0.5, 0.7284], abs=5e-5)


@given(st.floats(0, 5), st.floats(1e-4, 100), st.floats(1e-3, 50))
def test_the_lines_of_a_ticket_fee_solve_their_conditions(slope: float, fee: float, stiffness: float) -> None:
    """Both conditions of smooth fit hold at the two lines, which a bracketing root finder confirms."""
    outer, inner = (float(v) for v in fixed_fee_lines(slope=slope, fee=fee, stiffness=stiffness))
    assert 0.0 <= inner < outer
    m, d = 0.5 * (outer + inner), 0.5 * (outer - inner)
    assert 4.0 * stiffness * m * d**3 == pytest.approx(fee, rel=1e-9)
    assert 2.0 * stiffness * m * (m * m - d * d) == pytest.approx(slope, rel=1e-9, abs=1e-9 * stiffness * m**3)

    def short_of(middle: float) -> float:
        return 2.0 * stiffness * (middle**3 - middle * (fee / (4.0 * stiffness * middle)) ** (2.0 / 3.0)) - slope

    least = (fee / (4.0 * stiffness)) ** 0.25
    assert m == pytest.approx(brentq(short_of, least * (1 - 1e-12), 10.0 * (least + m), xtol=1e-14), rel=1e-8)


def test_the_ends_of_the_ticket_fee() -> None:
    """Without a fee the two lines are Whalley and Wilmott's edge; without a spread they are (12 F G^2/g)^(1/4) and 0."""
    x = seen(gamma=-3.0, rate=0.03)
    edge = WhalleyWilmott(risk_aversion=0.1).half_width(x)
    assert FixedFeeBand(fee=0.0, risk_aversion=0.1).lines(x) == (pytest.approx(edge), pytest.approx(edge))
    x = seen(gamma=-3.0, cost=0.0)
    assert FixedFeeBand(fee=2.0, risk_aversion=0.1).lines(x) == (pytest.approx((12 * 2 * 9 / 0.1) ** 0.25), 0.0)
    band = FixedFeeBand(fee=2.0, risk_aversion=0.1).band(seen(held=50.0, cost=0.0))
    assert band.to == pytest.approx(-5.3)
    mixed = FixedFeeBand(fee=2.0, risk_aversion=0.1).band(seen(held=50.0))
    assert -5.3 < mixed.to < mixed.hi


def test_a_tolerance_is_an_aversion() -> None:
    """Paying 50 for sure to be rid of a deviation of 1,000 is an aversion of 1e-4: the normal's certainty equivalent."""
    g = risk_aversion_of(deviation=1000.0, cost=50.0)
    rng = np.random.default_rng(3)
    z = rng.standard_normal(100_000)
    z = np.concatenate((z, -z)) * 1000.0
    assert math.log(float(np.mean(np.exp(-g * z)))) / g == pytest.approx(50.0, rel=0.02)
    with pytest.raises(ValueError, match="deviation"):
        risk_aversion_of(deviation=0.0)


# --------------------------------------------------------------------------- shaped deltas


def test_leland_takes_each_leg_by_its_side() -> None:
    """A written leg is hedged at the raised vol and a bought one at the lowered; told so, all as short or as long."""
    x = legs()
    dt = 1 / 365
    up, down = leland_vol(x.vol, 0.002, dt=dt), leland_vol(x.vol, 0.002, dt=dt, sign=-1.0)
    policy = LelandDelta(interval="1d")
    assert policy.leg_deltas(x) == pytest.approx([delta_at(x, up)[0], delta_at(x, down)[1]])
    assert LelandDelta(interval="1d", side="short").leg_deltas(x) == pytest.approx(delta_at(x, up))
    assert LelandDelta(interval="1d", side="long").leg_deltas(x) == pytest.approx(delta_at(x, down))


def test_the_sign_of_the_net_gamma_decides_for_the_book() -> None:
    """Hoggard, Whalley and Wilmott move every leg's vol up where the book is short gamma, down where it is long."""
    policy = HoggardWhalleyWilmott(interval="1d")
    x = legs()
    assert x.net_gamma < 0
    assert policy.leg_deltas(x) == pytest.approx(delta_at(x, leland_vol(x.vol, 0.002, dt=1 / 365)))
    x = legs(weight=np.array([100.0, -50.0]))
    assert policy.leg_deltas(x) == pytest.approx(delta_at(x, leland_vol(x.vol, 0.002, dt=1 / 365, sign=-1.0)))


SHAPERS: list[ShapesDelta] = [
    LelandDelta(interval="1h"),
    HoggardWhalleyWilmott(interval="1h"),
    Zakamouline(risk_aversion=0.01),
]


@pytest.mark.parametrize("policy", SHAPERS, ids=lambda p: p.name)
def test_without_cost_the_delta_is_the_models(policy: ShapesDelta) -> None:
    """At cost zero no vol is moved."""
    x = legs(cost=0.0)
    assert policy.leg_deltas(x) == pytest.approx(x.delta, abs=1e-15)


@pytest.mark.parametrize("policy", SHAPERS, ids=lambda p: p.name)
@pytest.mark.parametrize("spot", [60.0, 100.0, 160.0])
@pytest.mark.parametrize("tau", [0.0, 1e-12, 1e-6])
def test_deltas_at_the_end_are_the_payoffs(policy: ShapesDelta, spot: float, tau: float) -> None:
    """With no time left, and whatever the cost, a leg's delta is 0, 1 or -1 (1/2 at the kink), never NaN."""
    x = legs(spot=spot, tau=np.array([tau, tau]), cost=0.05)
    call = 0.5 if spot == 100.0 else float(spot > 100.0)
    found = policy.leg_deltas(x)
    assert np.isfinite(found).all()
    if tau == 0.0 or spot != 100.0:
        assert found == pytest.approx([call, -float(spot < 90.0)], abs=1e-6)


def test_long_gamma_at_a_cost_beyond_the_bracket_is_the_payoffs_delta() -> None:
    """Where Leland's variance would be negative the vol is zero, not a NaN."""
    assert leland_vol(0.2, 0.5, dt=1 / 252, sign=-1.0) == 0.0
    assert LelandDelta(interval="1m", side="long").leg_deltas(legs(spot=120.0, cost=0.5)) == pytest.approx([1.0, 0.0])


def test_what_the_model_knows_beyond_black_stays() -> None:
    """A delta with a smile's part keeps that part when its vol is modified."""
    x = legs()
    shifted = x._replace(delta=x.delta + 0.07)
    policy = Zakamouline(risk_aversion=0.01)
    assert policy.leg_deltas(shifted) - policy.leg_deltas(x) == pytest.approx([0.07, 0.07])


def test_minimum_variance_adds_vega_times_the_slope() -> None:
    """Hull and White's slope and the skew's are added to Black's delta; stickiness 1 adds nothing."""
    x = legs()
    fitted = MinVarDelta(inner=BAND, a=0.1, b=-0.3, c=0.2).leg_deltas(x)
    quadratic = 0.1 - 0.3 * x.delta + 0.2 * x.delta**2
    assert fitted == pytest.approx(x.delta + x.vega / (100.0 * np.sqrt(x.tau)) * quadratic)
    by_skew = MinVarDelta(inner=BAND, stickiness=0.0, skew=-0.2).leg_deltas(x)
    assert by_skew == pytest.approx(x.delta + x.vega * 0.2 / 100.0)
    assert MinVarDelta(inner=BAND, stickiness=1.0, skew=-0.2).leg_deltas(x) == pytest.approx(x.delta)
    at_end = MinVarDelta(inner=BAND, a=0.1, b=-0.3, c=0.2).leg_deltas(legs(tau=np.zeros(2)))
    assert np.isfinite(at_end).all()


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_bartlett_is_the_total_move_of_the_sabr_price(beta: float) -> None:
    """Moving the forward, and alpha as it moves on average with it, changes the option's price by Bartlett's delta."""
    rho, nu, alpha = -0.4, 0.7, 0.2 * 100.0 ** (1.0 - beta)
    strike, tau = np.array([80.0, 100.0, 125.0]), np.full(3, 0.5)

    def price(forward: float, a: float) -> Any:
        vol = sabr.vol(forward, strike, tau, alpha=a, beta=beta, rho=rho, nu=nu)
        return black.black76(forward, strike, tau, vol).price

    step = 1e-3
    moved = rho * nu / 100.0**beta * step
    slope = (price(100.0 + step, alpha + moved) - price(100.0 - step, alpha - moved)) / (2 * step)
    vol = sabr.vol(100.0, strike, tau, alpha=alpha, beta=beta, rho=rho, nu=nu)
    x = legs(strike=strike, tau=tau, vol=vol, cp=np.ones(3), weight=np.ones(3), rate=0.0)
    policy = BartlettDelta(inner=BAND, rho=rho, nu=nu, beta=beta)
    assert policy.leg_deltas(x) == pytest.approx(slope, abs=2e-7)


def test_a_wrapper_offers_what_the_inner_rule_does() -> None:
    """Interval, glance, shaped deltas and the wish to solve first pass through; what the inner has not is not made up."""
    every = MinVarDelta(inner=FixedInterval(interval="5m"), stickiness=2.0, skew=-0.1)
    assert (every.interval, every.needs_ticks) == (5 * NS_PER_MINUTE, False)
    assert not isinstance(every, Prepares)
    assert not hasattr(every, "stays")
    over = MinVarDelta(inner=BAND, stickiness=2.0, skew=-0.1)
    assert over.stays(0.0, 5.0, 1.0)
    stacked = MinVarDelta(inner=Zakamouline(risk_aversion=0.01), stickiness=2.0, skew=-0.1)
    x = legs()
    expected = Zakamouline(risk_aversion=0.01).leg_deltas(x) - x.vega * 0.1 / 100.0
    assert stacked.leg_deltas(x) == pytest.approx(expected)
    with pytest.raises(ValueError, match="inner"):
        MinVarDelta(inner=3, stickiness=2.0, skew=0.1)  # type: ignore[arg-type]  # no policy


# --------------------------------------------------------------------------- when


def test_a_move_band_counts_from_the_last_hedge() -> None:
    """Nothing below the threshold either way, the exact hedge from it on, and at once when it never hedged."""
    policy = MoveBand(pct=1.0)
    assert policy.band(seen(spot=100.99)) == Band(-INF, INF)
    assert policy.band(seen(spot=99.01)) == Band(-INF, INF)
    assert policy.band(seen(spot=101.0)) == Band(-5.3, -5.3)
    assert policy.band(seen(spot=98.9)) == Band(-5.3, -5.3)
    assert policy.band(seen(last_hedge_ts=NEVER, last_hedge_spot=math.nan)) == Band(-5.3, -5.3)
    daily = MoveBand(deviations=2.0)
    far = 2.0 * 0.2 / math.sqrt(365.0)
    assert daily.band(seen(spot=100.0 * (1 + 0.99 * far))).hi == INF
    assert daily.band(seen(spot=100.0 * (1 + 1.01 * far))).hi == -5.3


@pytest.mark.parametrize(
    "policy", [LelandDelta(interval="1h"), HoggardWhalleyWilmott(interval="1h")], ids=lambda p: p.name
)
def test_interval_rules_act_at_their_beats(policy: HedgePolicy) -> None:
    """The exact hedge when due, the whole line between."""
    assert policy.band(seen(now=NS_PER_HOUR - 1)) == Band(-INF, INF)
    assert policy.band(seen(now=NS_PER_HOUR)) == Band(-5.3, -5.3)


@given(st.floats(0.01, 1e4), st.floats(1e-6, 2.0), st.floats(1e-6, 2.0))
def test_the_optimal_speed_is_the_mean_of_small_steps(kappa: float, tau: float, dt: float) -> None:
    """The share traded over an interval is that of many short ones in a row, lies in [0, 1], and grows with kappa."""
    share = float(share_of_gap(kappa, tau=tau, dt=dt))
    assert 0.0 <= share <= 1.0
    left, step = 1.0, min(dt, tau) / 64
    for i in range(64):
        left *= 1.0 - float(share_of_gap(kappa, tau=max(tau - i * step, 1e-9), dt=step))
    assert share == pytest.approx(1.0 - left, abs=1e-6)
    assert float(share_of_gap(2 * kappa, tau=tau, dt=dt)) >= share - 1e-12


def test_the_optimal_speed_solves_its_equation() -> None:
    """kappa balances impact and risk, and the share over a short beat is kappa tanh(kappa tau) dt."""
    kappa = float(almgren_li_kappa(spot=100.0, vol=0.2, impact=0.5, risk_aversion=0.01))
    assert kappa == pytest.approx(math.sqrt(0.01 * 0.04 * 1e4 / (2 * 0.5)))
    assert float(share_of_gap(kappa, tau=0.3, dt=1e-7)) == pytest.approx(
        kappa * math.tanh(kappa * 0.3) * 1e-7, rel=1e-5
    )
    policy = AlmgrenLiSpeed(impact=0.5, risk_aversion=0.01, interval="1h")
    band = policy.band(seen(want=-10.0, held=0.0))
    share = share_of_gap(kappa, tau=0.25, dt=NS_PER_HOUR / NS_PER_YEAR)
    assert band.lo == band.hi == pytest.approx(float(-10.0 * share))


# --------------------------------------------------------------------------- pins


def plan(**changes: Any) -> HedgePlan:
    known: dict[str, Any] = {
        "now": NS_PER_DAY, "spot": 100.0, "rate": 0.0, "dividend": 0.0, "cost": 0.001, "cp": (1.0, -1.0),
        "strike": (100.0, 90.0), "quantity": (-100.0, 50.0), "tau": (1 / 365, 0.5), "vol": (0.2, 0.2),
    }  # fmt: skip
    return HedgePlan(**(known | changes))


def test_a_pin_is_near_in_time_and_price() -> None:
    """Within the time and the distance a leg is pinned; one deviation of the move left is a distance too; ended ones not."""
    known: dict[str, Any] = {"strike": 100.0, "vol": 0.2, "within": 1 / 365, "distance": 0.5, "deviations": 0.0}
    assert is_pinned(spot=100.4, tau=0.5 / 365, **known)
    assert not is_pinned(spot=100.6, tau=0.5 / 365, **known)
    assert not is_pinned(spot=100.4, tau=2 / 365, **known)
    assert not is_pinned(spot=100.0, tau=-1e-9, **known)
    assert is_pinned(spot=100.6, tau=0.5 / 365, **(known | {"deviations": 1.0}))


def test_half_of_a_pinned_leg_is_hedged() -> None:
    """A pinned call counts half, a pinned put minus half, the others as the inner rule has them."""
    guard = PinGuard(inner=BAND, within="1d", distance=0.5)
    x = legs(spot=100.3, tau=np.array([0.5 / 365, 0.5]))
    assert guard.leg_deltas(x) == pytest.approx([0.5, x.delta[1]])
    assert guard.leg_deltas(legs(spot=103.0, tau=np.array([0.5 / 365, 0.5])))[0] > 0.9


def test_a_frozen_or_capped_pin_knows_the_books_strikes() -> None:
    """Prepared with the legs, the guard holds everything, or keeps the hedge in the cap, only while a leg is pinned."""
    free = BAND.band(seen(want=80.0, held=0.0))
    late = NS_PER_DAY + NS_PER_DAY // 2
    for action, cap, pinned in (("freeze", None, (-INF, INF)), ("cap", 20.0, (20.0, 20.0))):
        base = PinGuard(inner=BAND, within="1d", distance=0.5, action=action, cap=cap)  # type: ignore[arg-type]  # a word of the three
        assert base.band(seen(want=80.0, held=0.0)) == free
        guard = base.prepared(plan())
        at_strike = guard.band(seen(now=late, spot=100.2, want=80.0, held=0.0))
        assert (at_strike.lo, at_strike.hi) == pinned
        assert guard.band(seen(now=late, spot=101.0, want=80.0, held=0.0)) == free
        assert guard.band(seen(now=late + NS_PER_DAY, spot=100.0, want=80.0, held=0.0)) == free
        many = guard.band(seen(now=late, spot=np.array([100.2, 101.0]), want=80.0, held=0.0))
        assert list(many.lo) == [pinned[0], free.lo]
        assert not guard.stays(0.0, 0.0, 1.0) if action == "cap" else guard.stays(0.0, 0.0, 1.0)


# --------------------------------------------------------------------------- reach


def test_the_reach_of_a_book_is_its_payoffs_slopes() -> None:
    """A written call reaches from -1 to 0, a spread likewise, a straddle both sides, expiries add up."""
    assert reach_of([1], [100.0], [-1.0], [0.1]) == Reach(-1.0, 0.0)
    assert reach_of([1, 1], [95.0, 105.0], [-1.0, 1.0], [0.1, 0.1]) == Reach(-1.0, 0.0)
    assert reach_of([1, -1], [100.0, 100.0], [2.0, 2.0], [0.1, 0.1]) == Reach(-2.0, 2.0)
    assert reach_of([1, 1], [100.0, 100.0], [1.0, -1.0], [0.1, 0.2]) == Reach(-1.0, 1.0)
    assert reach_of([], [], [], []) == Reach(0.0, 0.0)


_leg = st.tuples(
    st.sampled_from([1.0, -1.0]),
    st.integers(80, 120).map(float),
    st.integers(-9, 9).map(float),
    st.sampled_from([0.1, 0.4]),
)


@given(st.lists(_leg, min_size=1, max_size=6), st.floats(50, 200))
def test_no_delta_lies_beyond_the_reach(book: list[tuple[float, float, float, float]], spot: float) -> None:
    """At any price the net delta of any book is inside its reach."""
    cp, strike, quantity, tau = (list(column) for column in zip(*book, strict=True))
    lo, hi = reach_of(cp, strike, quantity, tau)
    net = float(np.sum(np.array(quantity) * black.bsm(spot, strike, tau, 0.3, cp=cp).delta))
    assert lo - 1e-9 <= net <= hi + 1e-9


@pytest.mark.parametrize(
    ("band", "lo", "hi", "cut"),
    [
        (Band(-0.2, 0.4), 0.0, 1.0, Band(0.0, 0.4)),
        (Band(0.7, 1.3, 1.1), 0.0, 1.0, Band(0.7, 1.0, 1.0)),
        (Band(-5.0, 5.0), 0.0, 1.0, Band(-5.0, 5.0)),
        (Band(0.2, 0.4), 0.0, 1.0, Band(0.2, 0.4)),
        (Band(2.0, 3.0), 0.0, 1.0, Band(2.0, 3.0)),
        (Band(-INF, INF), 0.0, 1.0, Band(-INF, INF)),
    ],
)
def test_bands_are_cut_to_the_reach(band: Band, lo: float, hi: float, cut: Band) -> None:
    """An end beyond the reach comes in; a band that covers it, lies in it or apart from it stays; arrays alike."""
    assert within_reach(band, lo, hi) == cut
    to = None if band.to is None else np.full(2, band.to)
    wide = within_reach(Band(np.full(2, band.lo), np.full(2, band.hi), to), np.full(2, lo), np.full(2, hi))
    assert (wide.lo.tolist(), wide.hi.tolist()) == ([cut.lo] * 2, [cut.hi] * 2)


# --------------------------------------------------------------------------- a user's function


def test_a_users_function_is_the_rule() -> None:
    """Two numbers, three or a Band are taken; its answer for arrays has their shape."""
    assert CallableBand(function=straight).band(seen()) == Band(-8.3, -2.3, -5.3)
    assert CallableBand(function=lambda x: (x.want, x.want + 1)).band(seen()).to is None
    wide = CallableBand(function=lambda _: Band(-1.0, 1.0)).band(seen(want=np.zeros(3)))
    assert np.shape(wide.lo) == (3,)
    named = CallableBand(function="tests.unit.test_policies_closed_form:straight", interval="5m")
    assert (named.interval, named.needs_ticks) == (5 * NS_PER_MINUTE, False)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (3.0, "expected a Band"),
        ((1.0,), "expected a Band"),
        ((1.0, math.nan), "lo <= hi"),
        ((2.0, 1.0), "lo <= hi"),
        ((0.0, 1.0, 2.0), "expected to within"),
        ((np.zeros(3), np.ones(3)), "expected the shape"),
    ],
)
def test_an_answer_that_is_no_band_is_refused(answer: Any, words: str) -> None:
    """NaN, crossed ends, a target outside, another shape: each is named."""
    with pytest.raises(ValueError, match=words):
        CallableBand(function=lambda _: answer).band(seen())


@pytest.mark.parametrize("text", ["nowhere", "no_such_module_here:f", "math:no_such", "math:pi", ":f", "math:"])
def test_a_function_that_is_not_there_is_refused(text: str) -> None:
    """A name that is not a module and a function in it says which."""
    with pytest.raises(ValueError, match="callable: function"):
        CallableBand(function=text)


# --------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (MoveBand, "pct or deviations"),
        (lambda: MoveBand(pct=1.0, deviations=1.0), "pct or deviations"),
        (lambda: MoveBand(pct=-1.0), "pct"),
        (lambda: LelandDelta(interval="0s"), "interval"),
        (lambda: LelandDelta(interval="1h", side="left"), "side"),  # type: ignore[arg-type]  # a wrong word
        (lambda: HoggardWhalleyWilmott(interval=-1), "interval"),
        (lambda: WhalleyWilmott(risk_aversion=0.0), "risk_aversion"),
        (lambda: WhalleyWilmott(risk_aversion=math.nan), "risk_aversion"),
        (lambda: WhalleyWilmott(risk_aversion=1.0, scale=-1.0), "scale"),
        (lambda: WhalleyWilmott(risk_aversion=1.0, to="middle"), "'edge' or 'centre'"),  # type: ignore[arg-type]  # a wrong word
        (lambda: FixedFeeBand(fee=-1.0, risk_aversion=1.0), "fee"),
        (lambda: Zakamouline(risk_aversion=-1.0), "risk_aversion"),
        (lambda: AlmgrenLiSpeed(impact=0.0, risk_aversion=1.0, interval="1m"), "impact"),
        (lambda: MinVarDelta(inner=BAND), "a, b and c"),
        (lambda: MinVarDelta(inner=BAND, a=1.0), "a, b and c"),
        (lambda: MinVarDelta(inner=BAND, a=1.0, b=1.0, c=1.0, skew=0.1), "a, b and c"),
        (lambda: BartlettDelta(inner=BAND, rho=-1.0, nu=0.5), "rho"),
        (lambda: PinGuard(inner=BAND, within="1h"), "distance or deviations"),
        (lambda: PinGuard(inner=BAND, within="1h", distance=1.0, action="cap"), "cap"),
        (lambda: PinGuard(inner=BAND, within="1h", distance=1.0, cap=3.0), "cap"),
        (lambda: PinGuard(inner=BAND, within="1h", distance=1.0, action="run"), "action"),  # type: ignore[arg-type]  # a wrong word
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, words: str) -> None:
    """Each names the setting and what was expected."""
    with pytest.raises(ValueError, match=words):
        make()


# --------------------------------------------------------------------------- properties

WIDE: list[Any] = [
    lambda g: WhalleyWilmott(risk_aversion=g),
    lambda g: FixedFeeBand(fee=1.0, risk_aversion=g),
    lambda g: Zakamouline(risk_aversion=g),
]
market = st.fixed_dictionaries(
    {
        "spot": st.floats(1.0, 5000.0),
        "want": st.floats(-100.0, 100.0),
        "held": st.floats(-100.0, 100.0),
        "gamma": st.floats(-50.0, 50.0),
        "tau": st.floats(0.0, 3.0),
        "vol": st.floats(0.0, 2.0),
        "rate": st.floats(-0.05, 0.2),
        "cost": st.floats(0.0, 0.05),
        "per_contract": st.sampled_from([1.0, 50.0, -0.3]),
    }
)


@pytest.mark.parametrize("make", WIDE)
@given(changes=market, g=st.floats(1e-6, 10.0))
def test_a_band_is_around_what_is_wanted(make: Any, changes: dict[str, Any], g: float) -> None:
    """In every state, its last instant and no vol included, lo <= want <= hi without NaN, and a decision is at rest."""
    x = seen(**changes)
    band = make(g).band(x)
    assert band.lo <= x.want <= band.hi
    if band.to is not None:
        assert band.lo <= band.to <= band.hi
    first = decide(band, x.held, None, policy="p")
    after = make(g).band(x._replace(held=float(first.quantity)))
    slack = 1e-9 * (1.0 + abs(after.lo) + abs(after.hi))
    assert after.lo - slack <= float(first.quantity) <= after.hi + slack


@pytest.mark.parametrize("make", WIDE)
@given(changes=market, g=st.floats(1e-5, 1.0), more=st.floats(1.01, 10.0))
def test_dearer_is_wider_and_more_averse_is_narrower(make: Any, changes: dict[str, Any], g: float, more: float) -> None:
    """The width grows with the cost and shrinks with the aversion; more gamma never makes it narrower."""
    x = seen(**changes)

    def width(policy: HedgePolicy, state: BandInput) -> float:
        band = policy.band(state)
        return float(band.hi - band.lo)

    base = width(make(g), x)
    slack = 1e-9 * base + 1e-12 * (1.0 + abs(x.want))
    assert width(make(g), x._replace(cost=x.cost * more)) >= base - slack
    assert width(make(g * more), x) <= base + slack
    assert width(make(g), x._replace(gamma=x.gamma * more)) >= base - slack


@given(changes=market, g=st.floats(1e-5, 1.0), scale=st.sampled_from([0.01, 0.5, 10.0, 100.0]))
def test_money_may_be_counted_in_another_unit(changes: dict[str, Any], g: float, scale: float) -> None:
    """With price times s, gamma over s and aversion and fee to match, the same hedge is asked for."""
    x = seen(**changes)
    y = x._replace(spot=x.spot * scale, gamma=x.gamma / scale)
    for make in (
        lambda s: WhalleyWilmott(risk_aversion=g / s),
        lambda s: FixedFeeBand(fee=1.0 * s, risk_aversion=g / s),
        lambda s: Zakamouline(risk_aversion=g / s),
    ):
        one, other = make(1.0).band(x), make(scale).band(y)
        assert (other.lo, other.hi) == (
            pytest.approx(one.lo, rel=1e-9, abs=1e-9),
            pytest.approx(one.hi, rel=1e-9, abs=1e-9),
        )


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0.1, 3.0), st.floats(0.05, 1.0), st.floats(-0.1, 0.1)), min_size=1, max_size=4))
def test_leg_deltas_of_paths_are_those_of_each_path(rows: list[tuple[float, float, float]]) -> None:
    """Over paths, legs last, every shaping rule gives what it gives path by path."""
    spot = np.array([[100.0 * r[0]] for r in rows])
    x = legs(spot=spot)
    x = x._replace(net_gamma=x.net_gamma[:, np.newaxis])
    for policy in (
        *SHAPERS,
        MinVarDelta(inner=BAND, a=0.1, b=0.1, c=0.1),
        BartlettDelta(inner=BAND, rho=-0.5, nu=0.5, beta=0.7),
        PinGuard(inner=BAND, within="300d", distance=5.0),
    ):
        whole = policy.leg_deltas(x)
        assert whole.shape == (len(rows), 2)
        for i in range(len(rows)):
            assert whole[i] == pytest.approx(policy.leg_deltas(legs(spot=float(spot[i, 0]))), rel=1e-9, abs=1e-12)


def test_to_the_edge_and_to_the_centre_differ_in_where_they_trade_only() -> None:
    """The same lines; outside them one goes to the nearest line, the other to the middle."""
    x = seen(held=50.0)
    for kind in (WhalleyWilmott, Zakamouline):
        edge, centre = kind(risk_aversion=0.1).band(x), kind(risk_aversion=0.1, to="centre").band(x)
        assert (edge.lo, edge.hi, edge.to) == (centre.lo, centre.hi, None)
        assert centre.to == x.want


@given(st.lists(_leg, min_size=1, max_size=6), st.floats(60, 160), st.floats(0.05, 0.8), st.floats(-0.05, 0.1))
def test_the_terms_of_a_book_are_those_of_the_formula(
    book: list[tuple[float, float, float, float]], spot: float, vol: float, rate: float
) -> None:
    """The compiled means of time and vol are the readable ones, between the least and the greatest of the legs."""
    cp, strike, weight, tau = (np.array(column) for column in zip(*book, strict=True))
    vols = vol * (1.0 + 0.1 * np.arange(len(cp)))
    packed = black.pack_slice(
        strike=strike, expiry=(tau * NS_PER_YEAR).astype(np.int64), vol=vols, cp=cp, weight=weight, epoch=0
    )
    mine, readable = terms_kernel()(spot, 0, packed, rate, 0.0), terms_by_formula(spot, 0, packed, rate, 0.0)
    assert mine == (
        pytest.approx(readable[0], rel=1e-9, nan_ok=True),
        pytest.approx(readable[1], rel=1e-9, nan_ok=True),
    )
    if weight.any():
        assert tau.min() - 1e-9 <= mine[0] <= tau.max() + 1e-9
        assert vols.min() - 1e-12 <= mine[1] <= vols.max() + 1e-12


def test_terms_without_a_leg_or_a_vol_are_unknown() -> None:
    """No live leg and an unknown vol give NaN; an ended leg counts for nothing; far from the money weights decide."""
    one: dict[str, Any] = {"strike": 100.0, "expiry": NS_PER_YEAR, "cp": 1, "weight": -1.0, "epoch": 0}
    kernel = terms_kernel()
    assert math.isnan(kernel(100.0, 0, black.pack_slice(vol=math.nan, **one), 0.0, 0.0)[1])
    assert math.isnan(kernel(100.0, 2 * NS_PER_YEAR, black.pack_slice(vol=0.2, **one), 0.0, 0.0)[0])
    assert kernel(1e-6, 0, black.pack_slice(vol=0.2, **one), 0.0, 0.0) == (1.0, pytest.approx(0.2))
