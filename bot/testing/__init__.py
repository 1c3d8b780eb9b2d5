"""Fakes and contract suites for the authors of adapters, policies and strategies; needs nothing but this package.

`bot.testing.fakes` holds stand-ins for every port; `bot.testing.contracts` the laws of the ports as suites to subclass,
`bot.testing.strategies` the laws of a strategy as checks to run over a case.
"""
