"""What is so in the simulated world now: flags and fields that a scenario's conditions read."""

import asyncio
from typing import Any

from tiphys.sandbox.scenario import STRUCK, Condition
from tiphys.sandbox.store import Store


class Circumstances:
    """The scenario's flags beside the store's objects."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._flags: set[str] = set()
        self._changed = asyncio.Event()

    def set(self, flags: dict[str, bool]) -> None:
        """Set and unset flags."""
        self._flags |= {name for name, on in flags.items() if on}
        self._flags -= {name for name, on in flags.items() if not on}
        self._changed.set()

    @property
    def struck(self) -> bool:
        """Whether the fault has begun."""
        return STRUCK in self._flags

    def hold(self, condition: Condition) -> bool:
        """Say whether every given part of the condition holds now."""
        if condition.flag and condition.flag not in self._flags:
            return False
        if condition.unset and condition.unset in self._flags:
            return False
        if condition.object is None:
            return True
        wanted = condition.object
        found = self._store.find(wanted.kind, wanted.namespace, wanted.name)
        value = _at(found, condition.path)
        if condition.equals is not None and value != condition.equals:
            return False
        if condition.at_least is None and condition.at_most is None:
            return value is not None
        if not isinstance(value, int | float):
            return False
        low = condition.at_least is None or value >= condition.at_least
        return low and (condition.at_most is None or value <= condition.at_most)

    async def until(self, condition: Condition) -> None:
        """Wait until it holds; woken by every change, never by a clock."""
        unsubscribe = self._store.subscribe(lambda _event, _obj: self._changed.set())
        try:
            while not self.hold(condition):
                self._changed.clear()
                await self._changed.wait()
        finally:
            unsubscribe()


def _at(obj: Any, pointer: str) -> Any:
    """Read a JSON pointer; None where it leads nowhere."""
    here = obj
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(here, dict):
            here = here.get(key)
        elif isinstance(here, list) and key.isdigit() and int(key) < len(here):
            here = here[int(key)]
        else:
            return None
    return here
