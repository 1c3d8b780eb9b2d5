"""A shadow is a strategy held back, for the accounts a run is compared with; law: it wants nothing its strategy did not.

`Once` lets the first targets through and nothing after them: the static twin of a strategy that keeps acting. `Idle` lets
nothing through: the book as its owner brought it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bot.core.events import Corporate, Notice, Target
from bot.core.ports import Figures, HearsCorporate, HearsNotices, Reports, Strategy, StrategyView
from bot.core.quiet import UNTIL_TIMER, QuietBox


class Idle:
    """Holds what is held. Implements `Strategy`."""

    def __init__(self, inner: Strategy) -> None:
        self.name = inner.name
        self.book = inner.book
        self._inner = inner

    def start(self, view: StrategyView) -> Sequence[Target]:
        """Nothing."""
        return ()

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """Nothing."""
        return ()

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """Nothing."""
        return ()

    def stop(self, view: StrategyView) -> Sequence[Target]:
        """Nothing."""
        return ()

    def quiet(self, view: StrategyView) -> QuietBox | None:
        """Never woken."""
        return UNTIL_TIMER

    def watches(self) -> Sequence[str]:
        """What its strategy watches."""
        return self._inner.watches()

    def trades(self) -> Sequence[str]:
        """What its strategy may trade."""
        return self._inner.trades()


class Once:
    """Lets the first targets of a strategy through, then holds. Implements `Strategy`."""

    def __init__(self, inner: Strategy) -> None:
        self.name = inner.name
        self.book = inner.book
        self.inner = self._inner = inner
        self._acted = False

    def start(self, view: StrategyView) -> Sequence[Target]:
        """The opening targets, if it has any yet."""
        return self._first(lambda: self._inner.start(view))

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """The first targets, where the start had none."""
        return self._first(lambda: self._inner.wake(view))

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """The first targets, where the start had none."""
        return self._first(lambda: self._inner.timer(view, name))

    def notice(self, view: StrategyView, notice: Notice) -> Sequence[Target]:
        """The first targets, where the start had none."""
        inner = self._inner
        return self._first(lambda: inner.notice(view, notice)) if isinstance(inner, HearsNotices) else ()

    def corporate(self, view: StrategyView, event: Corporate) -> Sequence[Target]:
        """The first targets, where the start had none."""
        inner = self._inner
        return self._first(lambda: inner.corporate(view, event)) if isinstance(inner, HearsCorporate) else ()

    def stop(self, view: StrategyView) -> Sequence[Target]:
        """What its strategy holds at the close."""
        return self._inner.stop(view)

    def quiet(self, view: StrategyView) -> QuietBox | None:
        """Asleep once it has acted."""
        return QuietBox(UNTIL_TIMER.until) if self._acted else self._inner.quiet(view)

    def watches(self) -> Sequence[str]:
        """What its strategy watches."""
        return self._inner.watches()

    def trades(self) -> Sequence[str]:
        """What its strategy may trade."""
        return self._inner.trades()

    def figures(self, view: StrategyView) -> Figures:
        """Nothing once it has acted: its strategy would tell of looks it never took."""
        return self._inner.figures(view) if isinstance(self._inner, Reports) and not self._acted else {}

    def _first(self, ask: Callable[[], Sequence[Target]]) -> Sequence[Target]:
        if self._acted:
            return ()
        targets = ask()
        self._acted = bool(targets)
        return targets
