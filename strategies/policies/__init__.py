"""When and how much to trade: one rule per file, all of one shape (`band`)."""
