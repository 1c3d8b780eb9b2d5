"""American prices beside published tables: trees are met to their last digit, approximations within their known error."""

from __future__ import annotations

import numpy as np

from bot.pricing import american, american_tree

# The 27 puts of Geske and Johnson 1984: spot 40, rate 4.88%, no yield. Strike, then by vol 20%, 30%, 40% the values for
# 0.0833, 0.3333 and 0.5833 years. The contracts are that paper's; the four-digit values are those in circulation for a long
# binomial tree, written down without the page at hand. What vouches for them is the tree below, not the citation.
GESKE_JOHNSON = {
    35: [(0.0062, 0.2004, 0.4328), (0.0774, 0.6975, 1.2198), (0.2466, 1.3460, 2.1549)],
    40: [(0.8522, 1.5798, 1.9904), (1.3099, 2.4825, 3.1696), (1.7681, 3.3874, 4.3526)],
    45: [(5.0000, 5.0883, 5.2670), (5.0597, 5.7056, 6.2436), (5.2868, 6.5099, 7.3830)],
}

# Haug 1998, "Option Pricing Formulas", p. 24, the formula of Barone-Adesi and Whaley 1987, as quoted in QuantLib's test suite:
# strike 100, rate = yield = 10%. Rows of time and vol; columns calls on 90, 100, 110, then puts on the same.
BARONE_ADESI_WHALEY = {
    (0.1, 0.15): (0.0206, 1.8771, 10.0089, 10.0000, 1.8770, 0.0410),
    (0.1, 0.25): (0.3159, 3.1280, 10.3919, 10.2533, 3.1277, 0.4562),
    (0.1, 0.35): (0.9495, 4.3777, 11.1679, 10.8787, 4.3777, 1.2402),
    (0.5, 0.15): (0.8208, 4.0842, 10.8087, 10.5595, 4.0842, 1.0822),
    (0.5, 0.25): (2.7437, 6.8015, 13.0170, 12.4419, 6.8014, 3.3226),
    (0.5, 0.35): (5.0063, 9.5106, 15.5689, 14.6945, 9.5104, 5.8823),
}


def test_tree_table() -> None:
    """The 27 puts of Geske and Johnson 1984 agree with a tree's values to the digits that a tree has."""
    for strike, by_vol in GESKE_JOHNSON.items():
        for vol, published in zip((0.2, 0.3, 0.4), by_vol, strict=True):
            found = american.price(40.0, strike, [0.0833, 0.3333, 0.5833], vol, rate=0.0488, cp=-1).price
            assert np.abs(found - published).max() < 2e-4, (strike, vol, found)


def test_the_tree_itself_gives_the_tree_table() -> None:
    """A tree of 3001 steps built here gives the same 27 values, which no page vouches for."""
    for strike, by_vol in GESKE_JOHNSON.items():
        for vol, published in zip((0.2, 0.3, 0.4), by_vol, strict=True):
            for tau, value in zip((0.0833, 0.3333, 0.5833), published, strict=True):
                tree = american_tree.price(40.0, strike, tau, vol, rate=0.0488, cp=-1, steps=3001)
                assert abs(tree - value) < 2e-4, (strike, vol, tau, tree)


def test_approximation_table() -> None:
    """The 36 values of Barone-Adesi and Whaley's formula are met within its own error, which is not ours to hide."""
    spot = [90.0, 100.0, 110.0] * 2
    cp = [1, 1, 1, -1, -1, -1]
    gaps = []
    for (tau, vol), published in BARONE_ADESI_WHALEY.items():
        found = american.price(spot, 100.0, tau, vol, rate=0.1, dividend=0.1, cp=cp).price
        gaps.append(np.abs(found - published))
    assert np.max(gaps) < 0.05
    assert np.median(gaps) < 0.01


def test_flat_boundary_is_a_lower_bound() -> None:
    """Bjerksund and Stensland 1993 exercise at a flat boundary: their values, as in QuantLib's test suite, are below."""
    table = [
        # spot, strike, tau, vol, rate, dividend, cp, their value
        (42.0, 40.0, 0.75, 0.35, 0.04, 0.08, 1, 5.2704),  # Haug 1998, p. 27, as quoted there
        (36.0, 40.0, 1.0, 0.20, 0.06, 0.0, -1, 4.4531),
        (100.0, 100.0, 1.0, 0.0021, 0.05, 0.05, 1, 0.08032314),
    ]
    for spot, strike, tau, vol, rate, dividend, cp, published in table:
        found = float(american.price(spot, strike, tau, vol, rate=rate, dividend=dividend, cp=cp).price)
        assert -5e-5 < found - published < 5e-2 * published, (spot, found)


def test_small_vol_agrees_with_the_tree() -> None:
    """At the money with vol 0.21%, rate = yield = 5%, the price is a tree's of 2001 steps, not the approximation's 0.0803."""
    tree = american_tree.price(100.0, 100.0, 1.0, 0.0021, rate=0.05, dividend=0.05, cp=1, steps=2001)
    found = float(american.price(100.0, 100.0, 1.0, 0.0021, rate=0.05, dividend=0.05).price)
    assert abs(found - tree) < 1e-5
