"""evenkeel keeps an options book on an even keel.

The rooms, floor by floor: `domain` (what the market and the book are), `pricing` (pure maths), `core` (contracts),
`engine` (what happens to them), `lab` and `testing` (on top), `app` (configuration, wiring, command line).
"""

__version__ = "0.1.0"
