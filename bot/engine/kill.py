"""The kill ladder is a state: how much an account may still do; law: it goes up at a word or a limit, and down only when a
person clears it.

Nothing here asks the market, a model, a strategy, a journal or a venue: a rung holds while all of them fail. The state
is a pure fold of the journal's facts, so that it is the same after a restart.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from bot.engine.journal import Controlled


class Rung(IntEnum):
    """What is still allowed, from everything down to nothing."""

    NONE = 0
    ALERT = 1
    NO_NEW_RISK = 2
    HEDGE_ONLY = 3
    CANCEL_ALL = 4
    FLATTEN = 5

    @property
    def word(self) -> str:
        """How people write it."""
        return self.name.lower()


MEANING: Final[dict[Rung, str]] = {
    Rung.NONE: "orders go as limits allow",
    Rung.ALERT: "orders go as limits allow; a person should look",
    Rung.NO_NEW_RISK: "only orders that bring a position or a net delta nearer to zero",
    Rung.HEDGE_ONLY: "only orders that bring a net delta nearer to zero, in instruments without curvature",
    Rung.CANCEL_ALL: "no orders; open ones are cancelled",
    Rung.FLATTEN: "no orders but those that close what is held; open ones are cancelled",
}

PULL: Final = "kill"
CLEAR: Final = "clear"
UNREADABLE: Final = Rung.CANCEL_ALL
"""The rung of a kill whose level nobody can read: whoever called for a kill did not mean to go on."""


class KillState(msgspec.Struct, frozen=True, gc=False):
    """The rung an account stands on and why."""

    rung: Rung = Rung.NONE
    cause: str = ""

    def pulled(self, rung: Rung, cause: str) -> KillState:
        """The state after a rung was asked for: never lower than now."""
        return KillState(rung, cause) if rung > self.rung else self

    def apply(self, fact: object) -> KillState:
        """The state after a fact of the account's journal."""
        if not isinstance(fact, Controlled):
            return self
        if fact.verb == PULL:
            return self.pulled(*read_pull(fact.argument))
        return KillState() if fact.verb == CLEAR else self

    @property
    def words(self) -> str:
        """The rung and its cause in words, empty when it is none."""
        return f"{self.rung.word}: {self.cause}" if self.rung else ""


def rung_of(word: str) -> Rung:
    """The rung of a number 0 to 5 or a name such as `hedge_only`; ValueError for anything else.

    >>> rung_of("hedge-only")
    <Rung.HEDGE_ONLY: 3>
    """
    text = word.strip().upper().replace("-", "_").replace(" ", "_")
    if text in Rung.__members__:
        return Rung[text]
    if text.isascii() and text.isdigit() and int(text) <= max(Rung):
        return Rung(int(text))
    known = ", ".join(f"{rung.value} {rung.word}" for rung in Rung)
    raise ValueError(f"kill level: expected one of {known}; found {word!r}")


def read_pull(argument: str) -> tuple[Rung, str]:
    """Rung and cause of `LEVEL` or `LEVEL: cause`; a level that cannot be read is a cancel-all."""
    level, _, cause = argument.partition(":")
    try:
        return rung_of(level), cause.strip()
    except ValueError as fault:
        return UNREADABLE, f"{cause.strip()} ({fault})".strip()


def write_pull(rung: Rung, cause: str) -> str:
    """What `read_pull` reads."""
    return f"{rung.word}: {cause}"
