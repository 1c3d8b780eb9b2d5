"""Where trusted systems broke: each incident is a scenario that must not happen here."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal

import msgspec

from bot.core.events import Filled, Target, TargetLine
from bot.core.ports import Strategy, StrategyView
from bot.core.quiet import UNTIL_TIMER, QuietBox
from bot.domain.orders import OrderStatus
from bot.domain.units import NS_PER_SECOND
from bot.engine.facts import Alarmed, Began, Controlled, Ordered
from bot.engine.kill import PULL, Rung
from bot.engine.limits import LimitSettings
from bot.engine.recovery import digest_of
from bot.testing.virtual_time import World, run
from tests.simulation.bench import STOCK
from tests.simulation.world import LIMITS, OTHER, SOUND, Daemon, Defect, Faults, Sim

D = Decimal
Script = Callable[[Sim], Awaitable[None]]
CALM = Faults(partial=0.0, reject=0.0)


def played(
    script: Script, faults: Faults = CALM, *, seconds: float = 40.0, seed: int = 1, parts: Defect = SOUND
) -> Sim:
    """A world in which a script acts; no invariant broke in it."""

    async def main(world: World) -> Sim:
        sim = Sim(world, faults, defect=parts)
        acting = asyncio.ensure_future(script(sim))
        await sim.live(seconds)
        assert not sim.broken, sim.broken
        await acting
        return sim

    sim = run(main, seed=seed)
    assert not sim.broken, sim.broken
    return sim


def facts(sim: Sim) -> list[object]:
    """Everything the book's journal says of the account at the venue."""
    assert sim.daemon is not None
    return [fact for record in sim.watch.story(sim.daemon).history for fact in record]


def alive(sim: Sim) -> Daemon:
    """The daemon that has the book, which is up."""
    assert sim.daemon is not None and not sim.daemon.process.dead
    return sim.daemon


async def resting(sim: Sim) -> list[str]:
    """Wait until orders rest at the venue; their ids."""
    while True:
        found = [i for i, held in sim.venue.orders.items() if held.status == "accepted" and held.order.kind == "limit"]
        if found and set(found) <= set(alive(sim).accounts[0].open_ids):
            return found
        await asyncio.sleep(0.1)


class Ladder:
    """A strategy that builds up many resting orders far below the market and leaves them there."""

    name = "ladder"
    book = "ladder"

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def start(self, view: StrategyView) -> Sequence[Target]:
        """Begin to climb."""
        view.wake_at(view.now + NS_PER_SECOND, "1")
        return ()

    def restore(self, view: StrategyView, memory: bytes) -> None:
        """The timer asked for still rings."""

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """One contract more, one step lower."""
        step = int(name)
        if step < self._steps:
            view.wake_at(view.now + NS_PER_SECOND // 2, str(step + 1))
        limit = D("97.00") - D(step) / 100
        line = TargetLine(STOCK.id, D(step), float(step))
        return [Target(book=self.book, lines=(line,), reason="step", kind="limit", tif="gtc", limits={STOCK.id: limit})]

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """Nothing."""
        return ()

    def stop(self, view: StrategyView) -> Sequence[Target]:
        """Nothing."""
        return ()

    def quiet(self, view: StrategyView) -> QuietBox | None:
        """Timers alone."""
        return UNTIL_TIMER

    def watches(self) -> Sequence[str]:
        """The stock."""
        return (STOCK.id,)

    def trades(self) -> Sequence[str]:
        """The stock."""
        return (STOCK.id,)


class Climbing(Defect):
    """A sound daemon whose account at the venue builds a ladder of fourteen resting orders."""

    name = "fourteen resting orders"

    def strategies(self, daemon: Daemon, name: str) -> list[Strategy]:
        """The ladder at the venue, the usual beside it."""
        if name != "dynamic":
            return daemon.strategies(name)
        daemon.silent = True
        return [Ladder(14)]

    def limits(self) -> LimitSettings:
        """Room for fourteen orders."""
        return msgspec.structs.replace(LIMITS, max_open_orders=20, price_collar=0.2)


class Fused(Defect):
    """A sound daemon with fuses: two orders a second at most, and all is cancelled at the third reject."""

    name = "fuses"

    def limits(self) -> LimitSettings:
        """Two fuses."""
        return msgspec.structs.replace(
            LIMITS, orders_per_second=2.0, order_burst=2, max_rejects=3, on_rejects=Rung.CANCEL_ALL
        )


def test_hummingbot_8457_outage_while_orders_rest() -> None:
    """Orders that rest while the venue cannot be reached stay in our books, and are known again afterwards."""
    seen: Counter[str] = Counter()

    async def script(sim: Sim) -> None:
        await asyncio.sleep(10.0)
        ids = await resting(sim)
        sim.venue_down = True
        for _ in range(60):  # shorter than the dead man's patience
            await asyncio.sleep(0.1)
            working = {i for i in ids if sim.venue.orders[i].status == "accepted"}
            account = alive(sim).accounts[0]
            assert working <= set(account.open_ids)
            seen["tracked"] += len(working)
        sim.venue_down = False

    sim = played(script, parts=Climbing())
    assert seen["tracked"] > 50
    assert sim.seen["fold compared"] > 0


def test_hummingbot_493_a_timeout_is_not_a_failure() -> None:
    """With a third of all messages lost, no order is executed twice and none is sent anew while its fate is unknown."""

    async def script(sim: Sim) -> None:
        await asyncio.sleep(0)

    counts: Counter[str] = Counter()
    for seed in range(6):
        sim = played(script, Faults(lost=0.33, repeated=0.1, partial=0.3, reject=0.0), seed=seed, seconds=30.0)
        for held in sim.venue.orders.values():
            assert abs(held.filled) <= abs(held.order.quantity)
        counts["unknown"] += sum(1 for f in facts(sim) if getattr(f, "what", "") == "unknown")
        counts["orders"] += len(sim.venue.orders)
    assert counts["unknown"] > 20 and counts["orders"] > 20


def test_hummingbot_2534_the_kill_works_while_everything_fails() -> None:
    """With disk, venue and feed failing, a kill stops every order at once, and it holds over a crash."""
    orders: list[int] = []

    async def script(sim: Sim) -> None:
        await asyncio.sleep(12.0)
        sim.disk.full = sim.venue_down = True
        sim.faults = msgspec.structs.replace(sim.faults, cut=0.5)
        assert sim.say("kill", "cancel_all")
        await asyncio.sleep(0.1)
        assert alive(sim).accounts[0].gate.kill.rung is Rung.CANCEL_ALL
        orders.append(len([f for f in facts(sim) if isinstance(f, Ordered)]))
        await asyncio.sleep(5.0)
        assert len([f for f in facts(sim) if isinstance(f, Ordered)]) == orders[0]
        sim.disk.full = sim.venue_down = False
        sim.faults = CALM
        await asyncio.sleep(3.0)
        alive(sim).process.kill()
        await asyncio.sleep(8.0)
        assert alive(sim).accounts[0].gate.kill.rung is Rung.CANCEL_ALL
        assert len([f for f in facts(sim) if isinstance(f, Ordered)]) == orders[0]

    sim = played(script, seconds=45.0)
    assert orders[0] > 5
    assert any(isinstance(f, Controlled) and f.verb == PULL for f in facts(sim))


def test_nautilus_3046_what_the_venue_says_again_changes_nothing() -> None:
    """Every fill there ever was, said again after a restart, is a no-op."""

    async def script(sim: Sim) -> None:
        await asyncio.sleep(20.0)
        before = len(sim.venue.fills)
        assert before > 10
        alive(sim).process.kill()
        await asyncio.sleep(6.0)
        daemon = alive(sim)
        for fill in sim.venue.fills[:before]:
            daemon.wire.said_again(Filled(ts_recv=sim.machine.true(), account="dynamic", fill=fill))
        await asyncio.sleep(2.0)
        assert daemon.accounts[0].fill_count == len(sim.watch.story(daemon).fills)
        sim.seen["said again"] = before

    assert played(script).seen["said again"] > 10


def test_nautilus_4736_warm_and_cold_starts_give_the_same_position() -> None:
    """A restart from the whole journal, after a clean end or after a crash, holds what the venue holds."""

    async def script(sim: Sim) -> None:
        for turn in range(4):
            await asyncio.sleep(7.0)
            daemon = alive(sim)
            if turn % 2:
                daemon.process.kill()
            else:
                assert sim.say("stop", "")
            await asyncio.sleep(5.0)
            assert alive(sim) is not daemon
            held = alive(sim).accounts[0].ledger.quantities()
            for key in (STOCK.id, OTHER.id):
                known = sum((f.quantity for f in sim.venue.fills if f.instrument == key), D(0))
                assert abs(held.get(key, D(0)) - known) <= 100  # what is in the line
        sim.seen["turns"] += 4

    sim = played(script, seconds=55.0)
    assert sim.seen["turns"] == 4
    assert sim.seen["recovery compared"] > 0 and sim.seen["stopped"] >= 2


def test_nautilus_5000_fourteen_resting_orders_survive_a_kill() -> None:
    """Fourteen orders rest at the venue over a kill -9: none is dropped, none is made anew."""

    async def script(sim: Sim) -> None:
        await asyncio.sleep(14.0)
        daemon = alive(sim)
        ids = list(daemon.accounts[0].open_ids)
        assert len(ids) == 14
        assert all(sim.venue.orders[i].status == "accepted" for i in ids)
        daemon.process.kill()
        await asyncio.sleep(8.0)
        account = alive(sim).accounts[0]
        assert list(account.open_ids) == ids
        assert {account.orders[i].status for i in ids} == {OrderStatus.ACCEPTED}
        assert len(sim.venue.orders) == 14
        sim.seen["survived"] = 14

    faults = msgspec.structs.replace(CALM, restart_delay=0.5)
    assert played(script, faults, parts=Climbing()).seen["survived"] == 14


def test_lean_ib_249_fills_during_an_outage_are_asked_for() -> None:
    """What was filled while the line was down, and is never said again, is found by asking."""

    async def script(sim: Sim) -> None:
        for _ in range(4):
            await resting(sim)
            sim.venue_down = True
            before = len(sim.venue.fills)
            await asyncio.sleep(5.0)
            sim.seen["filled in the gap"] += len(sim.venue.fills) - before
            sim.venue.said.clear()  # a venue that says each word once
            sim.venue_down = False
            await asyncio.sleep(5.0)

    sim = played(script, seconds=60.0)
    assert sim.seen["filled in the gap"] > 0
    story = sim.watch.story(sim.daemons[-1])
    assert {fill.id for fill in sim.venue.fills} <= set(story.fills) | {f.id for f in sim.venue.fills[-2:]}


def test_jepsen_nats_nothing_is_acknowledged_before_its_record_is_safe() -> None:
    """With a disk that hangs and crashes that take what was not synced, every acknowledged word is in the journal."""

    async def script(sim: Sim) -> None:
        await asyncio.sleep(0)

    faults = Faults(crash_every=6.0, restart_delay=0.5, hang=0.15, disk=0.05, power=1.0)
    for seed in range(4):
        sim = played(script, faults, seed=seed)
        fills = {fill.id for fill in sim.venue.fills}
        assert sim.starts > 3
        waiting = {event.fill.id for _, event in sim.venue.said if isinstance(event, Filled)}
        assert fills - waiting <= set(sim.watch.story(sim.daemons[-1]).fills)
        assert len(fills - waiting) > 5


def test_knight_capital_2012_alarms_act() -> None:
    """A venue that rejects everything trips the fuse, orders a second are capped, and each start names what runs."""

    async def script(sim: Sim) -> None:
        await asyncio.sleep(8.0)
        sim.weather_turns(msgspec.structs.replace(CALM, reject=1.0))
        await asyncio.sleep(15.0)
        rung = alive(sim).accounts[0].gate.kill.rung
        assert rung is Rung.CANCEL_ALL
        sim.seen["orders at the fuse"] = len(sim.venue.orders)
        await asyncio.sleep(10.0)
        assert len(sim.venue.orders) == sim.seen["orders at the fuse"]
        sim.weather_turns(CALM)

    sim = played(script, parts=Fused())
    rejected = [held for held in sim.venue.orders.values() if held.status == "rejected"]
    assert 3 <= len(rejected) <= 6  # those that were on their way when the third was heard
    seconds = Counter(held.order.ts // NS_PER_SECOND for held in sim.venue.orders.values())
    assert max(seconds.values()) <= 4  # a burst of two, and two that came back within the second
    recorded = facts(sim)
    assert any(isinstance(f, Alarmed) and f.alarm.code == "kill" for f in recorded)
    began = [f for f in recorded if isinstance(f, Began)]
    assert began and all(f.release == "sim" and f.config_hash == "sim" for f in began)


def test_a_session_that_ended_well_is_what_its_journal_says() -> None:
    """The digest of the running account is the digest of its mirror, folded record by record."""

    async def script(sim: Sim) -> None:
        await asyncio.sleep(15.0)
        daemon = alive(sim)
        assert digest_of(daemon.accounts[0]) == digest_of(daemon.mirror[0])

    played(script, seconds=20.0)
