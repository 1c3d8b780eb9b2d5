"""The suite for strategies passes an honest one and finds every broken one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import msgspec
import pytest

from bot.core.events import Target, TargetLine
from bot.core.ports import StrategyView
from bot.core.quiet import UNTIL_TIMER, QuietBox
from bot.domain.units import NS_PER_MINUTE, Nanos
from bot.testing.strategies import CHECKS, STOCK, Case, broken_laws, chain_world, play

D = Decimal
HOUR = 60 * NS_PER_MINUTE
WORLD = chain_world()


class Memory(msgspec.Struct, frozen=True):
    """What an honest strategy keeps."""

    looks: int = 0


class Honest:
    """Buys one more call at the money every two hours, quotes allowing. Implements `Strategy`."""

    book = "main"

    def __init__(self, *, name: str = "honest", every: Nanos = 2 * HOUR) -> None:
        self.name = name
        self.every = every
        self.memory = Memory()

    def start(self, view: StrategyView) -> Sequence[Target]:
        return self.look(view)

    def wake(self, view: StrategyView) -> Sequence[Target]:
        return ()

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        return self.look(view)

    def stop(self, view: StrategyView) -> Sequence[Target]:
        return ()

    def quiet(self, view: StrategyView) -> QuietBox | None:
        return UNTIL_TIMER

    def watches(self) -> Sequence[str]:
        return (STOCK.id,)

    def trades(self) -> Sequence[str]:
        return ()

    def restore(self, view: StrategyView, memory: bytes) -> None:
        found = msgspec.json.decode(memory, type=Memory | None)
        self.memory = Memory() if found is None else found

    def figures(self, view: StrategyView) -> Mapping[str, Mapping[str, float | str | None]]:
        return {"looks": {"count": float(self.memory.looks)}}

    def look(self, view: StrategyView) -> Sequence[Target]:
        view.wake_at(view.now + self.every, "look")
        self.memory = Memory(self.memory.looks + 1)
        view.memory(self.name, self.memory)
        chain = view.chain(STOCK.id)
        rows = [
            i for i in range(len(chain.ids)) if chain.cp[i] == 1 and self.sees(float(chain.bid[i]), float(chain.ask[i]))
        ]
        if not rows:
            view.skip(STOCK.id, "no call has a good quote")
            return ()
        row = min(rows, key=lambda i: (abs(chain.strike[i] - 100.0), -chain.tau[i]))
        quantity = D(self.memory.looks)
        return [self.want(chain.ids[row], quantity)]

    def sees(self, bid: float, ask: float) -> bool:
        return bid <= ask

    def want(self, instrument: str, quantity: Decimal) -> Target:
        line = TargetLine(instrument, quantity, float(quantity))
        return Target(book=self.book, lines=(line,), reason=f"look {self.memory.looks}: one more call")


class Forgets(Honest):
    def restore(self, view: StrategyView, memory: bytes) -> None:
        self.memory = Memory()


class Blind(Honest):
    def sees(self, bid: float, ask: float) -> bool:
        return True


class Mute(Honest):
    def want(self, instrument: str, quantity: Decimal) -> Target:
        return Target(book=self.book, lines=(TargetLine(instrument, quantity, float(quantity)),), reason=" ")


class Gambles(Honest):
    def want(self, instrument: str, quantity: Decimal) -> Target:
        return super().want(instrument, D(random.SystemRandom().randint(1, 10**6)))


class Raises(Honest):
    def sees(self, bid: float, ask: float) -> bool:
        if math.isnan(bid):
            raise ValueError("no bid")
        return True


class Haunted(Honest):
    """Goes on wanting the first contract it ever saw."""

    def want(self, instrument: str, quantity: Decimal) -> Target:
        return super().want(min(WORLD.tradable), quantity)


class Unsaid(Honest):
    def figures(self, view: StrategyView) -> Mapping[str, Mapping[str, float | str | None]]:
        return {"looks": {"count": math.nan}}


class Idles(Honest):
    def look(self, view: StrategyView) -> Sequence[Target]:
        return ()


def case_of(kind: type[Honest]) -> Case:
    return Case(make=lambda: [kind()], world=WORLD, cuts=5)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_an_honest_strategy_passes(check: Callable[[Case], None]) -> None:
    """Every law holds for a strategy that keeps them."""
    check(case_of(Honest))


@pytest.mark.parametrize(
    ("kind", "law", "words"),
    [
        (Forgets, "check_a_restart_changes_nothing", "restarted before event"),
        (Blind, "check_bad_quotes_are_survived", "left on bid nan"),
        (Mute, "check_it_trades_and_says_why", "without a reason"),
        (Gambles, "check_the_same_world_gives_the_same_facts", "chance or the clock"),
        (Raises, "check_bad_quotes_are_survived", "no bid"),
        (Haunted, "check_expiry_leaves_no_ghost", "wanted after its end"),
        (Unsaid, "check_figures_are_plain", "expected a finite number"),
        (Idles, "check_it_trades_and_says_why", "wanted nothing"),
    ],
)
def test_a_broken_strategy_is_found(kind: type[Honest], law: str, words: str) -> None:
    """Each fault breaks the law it is named for, in words."""
    found = broken_laws(case_of(kind))
    assert words in found[law]


def test_a_promise_about_old_quotes_is_held() -> None:
    """Who promises not to trade on old quotes is told where it did."""
    found = broken_laws(msgspec.structs.replace(case_of(Honest), stale_after=HOUR))
    assert "s old" in found["check_bad_quotes_are_survived"]
    assert set(found) == {"check_bad_quotes_are_survived"}


def test_the_world_is_seeded() -> None:
    """Equal seeds give equal worlds, and another seed another."""
    again, other = chain_world(), chain_world(seed=2)
    case = case_of(Honest)
    chains = [play(msgspec.structs.replace(case, world=w)).journal.chain for w in (WORLD, again, other)]
    assert chains[0] == chains[1] != chains[2]
