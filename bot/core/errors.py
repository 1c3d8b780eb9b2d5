"""Every fault has a name, and its message says what was expected, what was found and where.

EvenkeelError                exit code   a fault of
├── ConfigError                  2       a configuration file or command-line word
├── BookError                    2       a book file or a contract in it
├── DataError                    3       a data file or feed as a whole
│   └── TooManyRefused           3       rows refused past `max_refused`
├── NotDelivered                 4       something this release names but does not do yet
├── PluginError                  5       a plug-in that is missing, not allowed or broken
├── JournalError                 6       a run's journal or tape
├── HaltedError                  7       a core room that stopped the run
├── RunNotFound                  8       a run asked for by name
├── StorageError                 9       a folder or disk that could not be written
└── Permanent                   10       an outside that no retry can mend
"""

from __future__ import annotations


class EvenkeelError(Exception):
    """A fault with a clear sentence and an exit code of its own."""

    exit_code = 1


class ConfigError(EvenkeelError):
    """A fault of a configuration file or of the command line."""

    exit_code = 2


class BookError(EvenkeelError):
    """A fault of a book file or of a contract named in it."""

    exit_code = 2


class DataError(EvenkeelError):
    """A fault of a data file or feed as a whole; faults of single rows are counted instead."""

    exit_code = 3


class TooManyRefused(DataError):
    """More rows were refused than `max_refused` allows."""


class NotDelivered(EvenkeelError):
    """Something this release names but does not do yet: refused by name, never approximated."""

    exit_code = 4


class PluginError(EvenkeelError):
    """A plug-in that is missing, not allowed by the configuration, or broken."""

    exit_code = 5


class JournalError(EvenkeelError):
    """A journal or tape that is damaged, cut or not what the header says."""

    exit_code = 6


class HaltedError(EvenkeelError):
    """A core room raised: the run stopped with cancels only."""

    exit_code = 7


class RunNotFound(EvenkeelError):
    """No run of that name in the runs folder."""

    exit_code = 8


class StorageError(EvenkeelError):
    """A folder or disk that could not be written: full, read-only or not ours."""

    exit_code = 9


class Permanent(EvenkeelError):
    """A fault of the outside that no retry can mend: a refused password, a closed account, an unknown protocol."""

    exit_code = 10
