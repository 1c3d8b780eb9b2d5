"""American prices beside the tables of trees, met to their last digit; approximations are in test_published_tables.py."""

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


def test_small_vol_agrees_with_the_tree() -> None:
    """At the money with vol 0.21%, rate = yield = 5%, the price is a tree's of 2001 steps, not the approximation's 0.0803."""
    tree = american_tree.price(100.0, 100.0, 1.0, 0.0021, rate=0.05, dividend=0.05, cp=1, steps=2001)
    found = float(american.price(100.0, 100.0, 1.0, 0.0021, rate=0.05, dividend=0.05).price)
    assert abs(found - tree) < 1e-5
