"""The outside world: one file per feed, broker or recorded format."""
