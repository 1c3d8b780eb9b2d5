"""The scenario feed keeps the law of `Feed`."""

from __future__ import annotations

from adapters.scenario import DealScript, Outage, ScenarioFeed, ScenarioOptions, Shock, Underlying
from bot.core.ports import Feed
from bot.domain.instruments import Universe
from bot.domain.units import NS_PER_MINUTE, parse_instant
from bot.testing.contracts import FeedContract

START = parse_instant("2024-03-01T14:30:00Z")


class TestScenario(FeedContract):
    """Two shares, a gap, a deal that closes, and a side that is withdrawn."""

    def make_feed(self) -> Feed:
        close = START + 200 * NS_PER_MINUTE
        outage = Outage(instrument="SIM:TWO", start=START, end=START + 9 * NS_PER_MINUTE, what="no_bid")
        return ScenarioFeed(
            ScenarioOptions(
                start=START,
                end=START + 300 * NS_PER_MINUTE,
                underlyings=(Underlying(id="SIM:ONE", spot=100.0), Underlying(id="SIM:TWO", spot=20.0)),
                shocks=(Shock(at=START + 90 * NS_PER_MINUTE, moves={"SIM:TWO": 0.1}),),
                deals=(
                    DealScript(
                        target="SIM:TGT",
                        acquirer="SIM:ONE",
                        ratio=0.25,
                        break_price=20.0,
                        expected_close=close,
                        at=close,
                    ),
                ),
                outages=(outage,),
                batch_rows=17,
            )
        )

    def make_universe(self) -> Universe:
        feed = self.make_feed()
        assert isinstance(feed, ScenarioFeed)
        return Universe(feed.instruments(""))
