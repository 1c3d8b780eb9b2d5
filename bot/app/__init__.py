"""Configuration, wiring, the daemon, reports and the command line."""
