"""Fakes and contract suites for adapter authors."""
