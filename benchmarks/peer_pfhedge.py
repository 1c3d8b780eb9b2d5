"""The peer's rate: policy-path-steps a second of pfhedge's Whalley-Wilmott hedging on one thread, as one number.

It needs pfhedge and torch and nothing of this project, so that an interpreter of its own may run it:

    PYTHON_WITH_PFHEDGE benchmarks/peer_pfhedge.py [--paths 16384] [--repeats 5]
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from typing import Any


def rate(paths: int, repeats: int) -> float:
    """Policy-path-steps a processor second; paths are simulated before, which is not counted."""
    torch: Any = importlib.import_module("torch")
    nn: Any = importlib.import_module("pfhedge.nn")
    instruments: Any = importlib.import_module("pfhedge.instruments")
    torch.set_num_threads(1)
    torch.manual_seed(1)
    stock = instruments.BrownianStock(sigma=0.2, cost=0.002, dt=0.25 / 252)
    derivative = instruments.EuropeanOption(stock, strike=1.0, maturity=0.25)
    model = nn.WhalleyWilmott(derivative, a=100.0)
    hedger = nn.Hedger(model, model.inputs())
    derivative.simulate(n_paths=paths)
    steps = stock.spot.size(1) - 1
    times = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            began = time.process_time()
            hedger.compute_portfolio(derivative, hedge=[stock])
            times.append(time.process_time() - began)
    return float(paths * steps / statistics.median(times[1:]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--paths", type=int, default=16_384)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    print(rate(asked.paths, asked.repeats))
