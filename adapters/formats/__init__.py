"""Recorded formats: each reader turns files of one kind into columns of market data in one order."""
