# fmt: off
import csv  # noqa: I001  (no blank lines: this file shows how short a feed is)
from bot.core.ports import FeedReport
from bot.domain.market import Quote
class ExampleCsv:  # columns ns, instrument, bid, ask; no header; in order of time
    name, recorded = "example_csv", True
    def __init__(self, options, **_wanted): self.path, self.counted = options["file"], FeedReport()
    async def __aenter__(self): return self
    async def __aexit__(self, *fault): pass
    def report(self): return self.counted
    async def events(self):
        with open(self.path) as file:  # noqa: PTH123  (one import less)
            for ns, name, bid, ask in csv.reader(file):
                self.counted.quotes += 1
                yield Quote(instrument=name, ts_event=int(ns), ts_recv=int(ns), bid=float(bid), ask=float(ask))
