"""The three roles of the service, each with an identity and a database user of its own.

What each holds and may do is DESIGN's role table; `role_gateway`, `role_agents` and `role_launcher`
wire one each.
"""

from collections.abc import Iterable
from enum import StrEnum


class Role(StrEnum):
    """A part of the service that can run in a process of its own."""

    GATEWAY = "gateway"
    """Takes posts, serves the API, takes approvals, engages the stop switch."""
    AGENTS = "agents"
    """Takes alerts in, reads, investigates, proposes, pages."""
    LAUNCHER = "launcher"
    """Runs the gate, creates Workflows and watches them."""


ALL = tuple(Role)


def parse_roles(words: Iterable[str]) -> tuple[Role, ...]:
    """Read role names, `all` among them; raises `ValueError` naming what is none."""
    found: set[Role] = set()
    for word in words:
        if word == "all":
            found |= set(ALL)
        elif word in set(Role):
            found.add(Role(word))
        else:
            raise ValueError(f"{word!r} is not a role; there are {', '.join(Role)} and all")
    return tuple(role for role in ALL if role in found) or ALL
