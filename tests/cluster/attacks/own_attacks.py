"""The attacks that an action brings along, as `ATTACKS` of `of_<action>.py` beside this file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from asking import JSON_PATCH, Json, Request
from attack import Attack

from tiphys.workflow_templates.catalogue import every

RUN = "tiphys-" + "a" * 40
"""The Workflow to whose pod the attacker's token is bound."""
MARK = "/metadata/annotations/tiphys.io~1run"


@dataclass(frozen=True)
class OwnAttacks:
    """What one action's account does rightly, and what it must not."""

    beyond: str
    """The rest of the section's heading, such as `its pods`."""
    own: Callable[[str], Request]
    """The request that the action really makes, in this namespace."""
    rightly: Sequence[Request]
    """Each form of it that must go through."""
    wrongly: Sequence[tuple[str, Sequence[Request]]]
    """What must be refused: a title, and its forms. Each guard is to be met by one."""
    objects: Callable[[str], Sequence[Json]] = lambda _: ()
    """What these requests are about, in this namespace; made for two of them."""


def attacks_by_action() -> Iterator[tuple[str, OwnAttacks]]:
    """Give each action that has such a module, and its attacks."""
    for action in every():
        name = f"of_{action.name.replace('-', '_')}"
        if find_spec(name):
            yield action.name, import_module(name).ATTACKS


def rightly() -> Iterator[Attack]:
    """Give what must go through, in the shape of attacks."""
    for name, found in attacks_by_action():
        yield Attack("its own write", f"act-{name}", tuple(found.rightly))


def wrongly() -> Iterator[tuple[str, str, Sequence[Attack]]]:
    """Give a section for each action."""
    for name, found in attacks_by_action():
        attacks = [Attack(title, f"act-{name}", tuple(forms)) for title, forms in found.wrongly]
        yield f"{name}, beyond {found.beyond}", "", attacks


def patch(path: str, *operations: Json, mark: str = "act", run: str = RUN) -> Request:
    """Patch an object that has annotations as an action does; without a mark: `mark=""`."""
    text = f"{run.removeprefix('tiphys-')}.{mark}"
    marking = [{"op": "add", "path": MARK, "value": text}] if mark else []
    return Request("PATCH", path, [*operations, *marking], JSON_PATCH)


def add(path: str, value: object) -> Json:
    """Give the operation that sets a field."""
    return {"op": "add", "path": path, "value": value}
