"""Whatever the book, a hedge programme keeps its promises: bounds, limits, lots, scale and order of instruments."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bot.pricing.hedge_program import HedgeSolution, solve


class Book(NamedTuple):
    """A programme as its arguments."""

    b: np.ndarray
    A: np.ndarray
    Q: np.ndarray
    held: np.ndarray
    cost: np.ndarray
    ticket: np.ndarray
    lot: np.ndarray
    reach: float

    def solve(self, *, max_nodes: int = 4000) -> HedgeSolution:
        return solve(
            self.b, self.A, self.Q, held=self.held, cost=self.cost, ticket=self.ticket, lot=self.lot,
            lo=self.held - self.reach, hi=self.held + self.reach, max_nodes=max_nodes,
        )  # fmt: skip


@st.composite
def books(draw: st.DrawFn) -> Book:
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = 10.0 ** draw(st.integers(-3, 5))
    worth = 10.0 ** draw(st.integers(-4, 4))
    L = rng.normal(size=(m, draw(st.integers(1, m)))) * rng.choice([0.0, 1.0, 30.0], size=(m, 1))
    lots = draw(st.sampled_from(["all", "none", "some"]))
    lot = {"all": np.ones(n), "none": np.zeros(n), "some": (np.arange(n) % 2).astype(float)}[lots]
    return Book(
        b=rng.normal(size=m) * size,
        A=rng.normal(size=(m, n)) * rng.choice([0.0, 1.0, 10.0], size=(m, n)),
        Q=L @ L.T,
        held=rng.integers(-5, 6, size=n).astype(float),
        cost=rng.uniform(0.0, 1.0, size=n) * worth,
        ticket=rng.uniform(0.0, 1.0, size=n) * worth * draw(st.sampled_from([0.0, 5.0])),
        lot=lot,
        reach=float(draw(st.sampled_from([0, 3, 50]))),
    )


@given(books())
def test_the_answer_keeps_its_promises(book: Book) -> None:
    """bound <= objective <= doing nothing; inside limits; whole lots; the parts add up; the residual is what is left."""
    found = book.solve()
    slack = 1e-9 * found.before + 1e-12
    assert found.bound <= found.objective <= found.before + slack
    assert found.gap <= 2e-9 * found.before + 1e-9 * found.objective + 1e-12 or not found.proved
    assert (np.abs(found.trade) <= book.reach + 1e-9).all()
    assert (found.trade[book.lot > 0] == found.lots[book.lot > 0]).all()
    left = book.b + book.A @ found.quantity
    assert np.allclose(left, found.residual, rtol=1e-9, atol=1e-9 * (1 + np.abs(book.b).max()))
    assert np.isclose(found.objective, found.risk + found.cost + found.tickets)


@given(books(), st.integers(0, 2**32 - 1))
def test_no_trade_beside_it_is_better(book: Book, seed: int) -> None:
    """No random trade inside the limits has a lower value than the proved answer."""
    found = book.solve()
    rng = np.random.default_rng(seed)
    steps = rng.integers(-2, 3, size=(200, len(book.held))).astype(float)
    steps = np.where(book.lot > 0, steps, steps * rng.random((200, 1)) * (1 + np.abs(found.trade)))
    trades = np.clip(found.trade + steps, -book.reach, book.reach)
    left = book.b + (book.held + trades) @ book.A.T
    value = (
        0.5 * np.einsum("ij,jk,ik->i", left, book.Q, left) + np.abs(trades) @ book.cost + (trades != 0) @ book.ticket
    )
    tolerance = found.gap + 1e-7 * found.before + 1e-12
    assert value.min() >= found.objective - tolerance


@given(books(), st.sampled_from([1e-6, 1e3, 1e9]))
def test_the_currency_does_not_matter(book: Book, scale: float) -> None:
    """Costs and risk in another currency unit give the same value in that unit."""
    one = book.solve()
    other = book._replace(Q=book.Q * scale, cost=book.cost * scale, ticket=book.ticket * scale).solve()
    if one.proved and other.proved:
        assert np.isclose(other.objective, scale * one.objective, rtol=1e-7, atol=scale * 3e-9 * one.before)


@given(books())
def test_the_order_of_instruments_does_not_matter(book: Book) -> None:
    """Listed in another order, the instruments give the same value."""
    turned = Book(*(book.b, book.A[:, ::-1], book.Q, *(v[::-1] for v in book[3:7]), book.reach))
    one, other = book.solve(), turned.solve()
    if one.proved and other.proved:
        assert np.isclose(other.objective, one.objective, rtol=1e-7, atol=3e-9 * one.before + 1e-12)


@given(books(), st.floats(1.0, 10.0))
def test_dearer_trading_never_lowers_the_value(book: Book, factor: float) -> None:
    """The optimum rises with every cost."""
    one = book.solve()
    dearer = book._replace(cost=book.cost * factor, ticket=book.ticket * factor).solve()
    if one.proved and dearer.proved:
        assert dearer.objective >= one.objective * (1 - 1e-9) - 3e-9 * one.before
