"""Research on top of the engine."""
