"""An attack: who tries what, in how many ways; and what stood in the way of each."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from asking import APPLY, JSON, MERGE, Answer, Json, Request

FIELD_MANAGER = "attacker"


@dataclass(frozen=True)
class Attack:
    """One kind of request that must be refused, in each of its forms."""

    title: str
    who: str
    """A key of `fort.USERS`."""
    requests: tuple[Request, ...]
    rbac_alone: bool = False
    """Nothing but RBAC can refuse it: reading, impersonating, changing the policies themselves."""

    @property
    def key(self) -> tuple[str, str]:
        """Give what makes it different from every other."""
        return self.title, self.who


Section = tuple[str, str, Sequence[Attack]]
"""A heading, a sentence below it, and the attacks."""


@dataclass(frozen=True)
class Outcome:
    """What came of an attack, form by form."""

    section: str
    attack: Attack
    own: tuple[Answer, ...]
    """With the attacker's own token; empty where no such token exists."""
    wide: tuple[Answer, ...]
    """With every right that RBAC can give; empty where that was not tried."""

    def certain(self, *, wide: bool) -> bool:
        """Whether one policy alone can have refused it.

        An identity of ours with every right meets the policy of that identity, too, and so does a
        token that no pod has; which of two policies is named in the answer is a matter of chance.
        """
        ours = self.attack.who in {"launcher", "gateway", "agents"}
        ours = ours or self.attack.who.startswith("act-")
        return not (ours and wide) and not self.attack.who.endswith("unbound")

    @property
    def wide_matters(self) -> bool:
        """Whether RBAC stood before admission, and admission could have been asked."""
        stood_first = any(answer.wall in {"", "RBAC"} for answer in self.own)
        return not self.attack.rbac_alone and (stood_first or not self.own)


def post(path: str, body: Json) -> Request:
    """Create."""
    return Request("POST", path, body)


def put(path: str, body: Json, **query: str) -> Request:
    """Replace."""
    return Request("PUT", path, body, query=query)


def merge(path: str, body: Json, **query: str) -> Request:
    """Patch by merging."""
    return Request("PATCH", path, body, MERGE, query)


def apply(path: str, body: Json, **query: str) -> Request:
    """Apply on the server's side, by force."""
    return Request(
        "PATCH", path, body, APPLY, {"fieldManager": "attacker", "force": "true"} | query
    )


def delete(path: str, **options: Any) -> Request:
    """Delete, with options where there are any."""
    body = {"apiVersion": "v1", "kind": "DeleteOptions", **options} if options else None
    return Request("DELETE", path, body, JSON)


def changed(body: Json, path: str, value: Any) -> Json:
    """Give a copy with one field set; `path` is parts joined by `/`, numbers for list items."""
    copy: Any = deepcopy(body)
    *parents, last = path.split("/")
    here = copy
    for part in parents:
        here = here[int(part)] if isinstance(here, list) else here.setdefault(_key(part), {})
    if isinstance(here, list):
        here[int(last)] = value
    else:
        here[_key(last)] = value
    return copy


def without(body: Json, path: str) -> Json:
    """Give a copy without one field."""
    copy: Any = deepcopy(body)
    *parents, last = path.split("/")
    here = copy
    for part in parents:
        here = here[int(part)] if isinstance(here, list) else here[_key(part)]
    del here[int(last) if isinstance(here, list) else _key(last)]
    return copy


def each(who: Sequence[str], make: Callable[[str], Attack]) -> list[Attack]:
    """Let several try the same."""
    return [make(one) for one in who]


def _key(part: str) -> str:
    return part.replace("~1", "/")
