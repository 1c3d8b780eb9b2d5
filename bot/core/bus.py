"""The bus hands each event to its subscribers by class, in subscription order; law: synchronous, FIFO when re-entered.

A handler that publishes does not recurse: the event queues behind those already under way. Each subscription says what
it serves, and the fault rule of its owner decides what a raise stops.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

Handler = Callable[[Any], None]
FaultRule = Callable[[str, Exception], None]


def raise_fault(serves: str, fault: Exception) -> None:
    """The default fault rule: a core room that raises stops the run."""
    raise fault


class Bus:
    """Synchronous dispatch by class."""

    def __init__(self, on_fault: FaultRule = raise_fault) -> None:
        self._handlers: dict[type, list[tuple[str, Handler]]] = {}
        self._queue: deque[Any] = deque()
        self._draining = False
        self._on_fault = on_fault

    def subscribe(self, kind: type, handler: Handler, *, serves: str) -> None:
        """Call `handler` with each published event of exactly this class; `serves` names what a fault of it stops."""
        self._handlers.setdefault(kind, []).append((serves, handler))

    def unsubscribe(self, serves: str) -> None:
        """Drop every subscription that serves this."""
        for kind, handlers in list(self._handlers.items()):
            left = [item for item in handlers if item[0] != serves]
            if left:
                self._handlers[kind] = left
            else:
                del self._handlers[kind]

    def __bool__(self) -> bool:
        """True when anybody subscribed to anything."""
        return bool(self._handlers)

    def watched(self, kind: type) -> bool:
        """True when somebody subscribed to this class."""
        return kind in self._handlers

    def publish(self, event: Any) -> None:
        """Hand the event to every subscriber of its class; returns when all queued events are done."""
        self._queue.append(event)
        if self._draining:
            return
        self._draining = True
        try:
            while self._queue:
                current = self._queue.popleft()
                for serves, handler in self._handlers.get(type(current), ()):
                    try:
                        handler(current)
                    except Exception as fault:  # noqa: BLE001  the rule decides: halt, freeze the book, or disable the shadow
                        self._on_fault(serves, fault)
        finally:
            self._draining = False
            self._queue.clear()
