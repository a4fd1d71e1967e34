"""Who people are to Tiphys: what each may do, and where.

Invariant: a person may what somebody granted, in the namespaces of that grant, and nothing else.
"""

import unicodedata
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Final

from pydantic import Field

from tiphys.policies.parts import Noun


class PersonRole(StrEnum):
    """What a person may do; each may what those before it may."""

    VIEWER = "viewer"
    """Read incidents, the record and the catalogue; ask questions."""
    OPERATOR = "operator"
    """Acknowledge, have an action done or a run undone, stop a run, pause, engage the stop."""
    APPROVER = "approver"
    """Approve and deny plans."""
    ADMIN = "admin"
    """Reset breakers, unfreeze targets, end somebody else's pause."""


_RANK: Final = {role: rank for rank, role in enumerate(PersonRole)}


class RoleGrant(Noun):
    """A role in some namespaces."""

    role: PersonRole
    namespaces: tuple[str, ...] = ("*",)
    """Names, `*` standing for anything; `-` for targets outside any namespace, such as nodes. A
    bare `*` covers those too."""

    def covers(self, namespace: str) -> bool:
        """Tell whether it counts in a namespace; empty: outside any."""
        if not namespace:
            return "-" in self.namespaces or "*" in self.namespaces
        return any(fnmatchcase(namespace, pattern) for pattern in self.namespaces)


class Person(Noun):
    """Somebody whose identity has been proven, and what was granted to them."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    """As the record spells it; one person has one name in every channel."""
    teams: tuple[str, ...] = ()
    """What policies may name instead of people."""
    grants: tuple[RoleGrant, ...] = ()

    def may(self, role: PersonRole, namespace: str | None = None) -> bool:
        """Tell whether they have at least a role in a namespace; None: in any."""
        return any(
            _RANK[grant.role] >= _RANK[role] and (namespace is None or grant.covers(namespace))
            for grant in self.grants
        )

    def is_one_of(self, named: tuple[str, ...]) -> bool:
        """Tell whether a list of people's names and teams means them; an empty one means all."""
        return not named or self.name in named or any(team in named for team in self.teams)

    def may_everywhere(self, role: PersonRole) -> bool:
        """Tell whether they have at least a role whatever the namespace."""
        return any(
            _RANK[grant.role] >= _RANK[role] and "*" in grant.namespaces for grant in self.grants
        )

    def at_most(self, role: PersonRole) -> "Person":
        """Give the same person with every grant lowered to a role."""
        grants = tuple(
            RoleGrant(
                role=min(grant.role, role, key=_RANK.__getitem__), namespaces=grant.namespaces
            )
            for grant in self.grants
        )
        return self.model_copy(update={"grants": grants})


def same_person(one: str, other: str) -> bool:
    """Tell whether two names mean one person: case and spaces make nobody a second one."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
