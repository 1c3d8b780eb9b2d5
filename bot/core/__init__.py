"""The contracts everyone may import: events, ports, quiet boxes, matching, errors."""
