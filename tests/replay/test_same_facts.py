"""The same facts whatever the pace and the batches: byte for byte, in every account."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bot.app import config as configs
from bot.app.config import examples_folder
from bot.app.daemon import drive
from bot.app.wiring import assemble
from bot.core.events import FeedEvent
from bot.core.ports import FeedReport
from bot.domain.units import parse_instant
from bot.engine.journal import Executed, Step
from bot.testing.fakes import FakeClock
from tests.realdata import lean_root
from tests.replay.command import CALL, write_session
from tests.replay.days import ES, GOOG, SPXW, Day, changed, facts, play, write_config

BAND = 'kind = "delta_band"\nhalf_width = {}\nto = "edge"'
LATE = '[broker]\nkind = "paper"\nlatency = "1500ms"\njitter = "700ms"\nseed = 3'
HOUR = {"EVENKEEL__SESSION__END": "2025-03-03T15:10:00Z"}


def synthetic(**env: str) -> configs.Config:
    return configs.load_config(examples_folder() / "synthetic.toml", {**HOUR, **env})


def fills(steps: Sequence[Step]) -> int:
    return sum(isinstance(fact, Executed) for step in steps for fact in step.facts)


def check_all_ways(path: Path, *, start: str) -> None:
    """Play at max, at 1x on a clock that jumps, with one quote a batch, with 500, and with all in one."""
    plain = facts(play(configs.load_config(path, {}))[1])
    assert b'"fact":"fill"' in plain
    clock = FakeClock(parse_instant(start), jumps=True)
    began = clock.now()
    assert facts(play(configs.load_config(path, {}), speed=1.0, clock=clock)[1]) == plain
    assert clock.now() > began
    for rows in (1, 500, 1_000_000):
        again = configs.load_config(path, {"EVENKEEL__FEEDS__0__BATCH_ROWS": str(rows)})
        assert facts(play(again)[1]) == plain, f"{rows} rows a batch"


@pytest.mark.parametrize("policy", ['kind = "fixed_interval"\ninterval = "5m"', BAND.format(30)], ids=["clock", "band"])
@pytest.mark.parametrize("broker", ["", LATE], ids=["at once", "late"])
def test_pace_and_batches_change_no_fact(policy: str, broker: str, tmp_path: Path) -> None:
    """A made session, hedged by the clock or in a band, filled at once or after a seeded latency."""
    edit = [('kind = "fixed_interval"\ninterval = "5m"', policy), ("[storage]", f"{broker}\n[storage]")]
    check_all_ways(write_session(tmp_path, edit=edit), start="2025-03-03T14:00:00Z")


@pytest.mark.real
@pytest.mark.parametrize(
    "day",
    [ES, changed(GOOG, policy=BAND.format(250), tail=LATE), changed(SPXW, tail=LATE)],
    ids=lambda day: day.name,
)
def test_pace_and_batches_change_no_fact_of_a_recorded_day(day: Day, tmp_path: Path) -> None:
    """The recorded days, with and without latency."""
    check_all_ways(write_config(tmp_path, day, lean_root()), start="2000-01-01T00:00:00Z")


def test_one_seed_is_one_session() -> None:
    """Two runs of a seed are the same byte for byte; another seed, of feed or broker, is another run."""
    first, again = play(synthetic())[1], play(synthetic())[1]
    assert fills(first) > 0
    assert facts(first) == facts(again)
    assert facts(play(synthetic(EVENKEEL__FEEDS__0__SEED="2"))[1]) != facts(first)
    assert facts(play(synthetic(EVENKEEL__BROKER__SEED="2"))[1]) != facts(first)


def test_batches_of_the_synthetic_feed_change_no_fact() -> None:
    """The built-in session with one row a batch, and with all in one."""
    plain = facts(play(synthetic())[1])
    for rows in ("1", "500"):
        assert facts(play(synthetic(EVENKEEL__FEEDS__0__BATCH_ROWS=rows))[1]) == plain


class Stopping:
    """A feed at whose tenth batch somebody says stop."""

    recorded = True

    def __init__(self, inner: Any, stop: asyncio.Event) -> None:
        self._inner, self._stop = inner, stop
        self.name = inner.name

    async def __aenter__(self) -> Stopping:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *fault: Any) -> None:
        await self._inner.__aexit__(*fault)

    async def events(self) -> AsyncIterator[FeedEvent]:
        count = 0
        async for event in self._inner.events():
            count += 1
            if count == 10:
                asyncio.get_running_loop().call_soon(self._stop.set)
            yield event

    def report(self) -> FeedReport:
        return self._inner.report()  # type: ignore[no-any-return]  # the feed within is any feed


async def test_a_stop_is_heard_between_batches_at_full_speed(tmp_path: Path) -> None:
    """A replay as fast as it goes still hears the word of a signal, at the next batch, and closes its hedge there."""
    config = configs.load_config(write_session(tmp_path), {"EVENKEEL__FEEDS__0__BATCH_ROWS": "2"})
    run = assemble(config, journal=None)
    stop = asyncio.Event()
    run.feeds = [Stopping(feed, stop) for feed in run.feeds]
    await drive(run, stop=stop)
    assert run.loop.ended_at is not None
    assert run.loop.ended_at < parse_instant("2025-03-03T14:45:00Z")
    assert run.accounts[0].ledger.quantities().keys() == {CALL}
