"""What happens to market data and orders between the feed and the journal."""
