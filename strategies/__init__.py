"""One strategy per file; rules of when and how much to trade live in `strategies.policies`."""
