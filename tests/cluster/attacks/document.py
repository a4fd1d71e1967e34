"""docs/attacks.md: what was tried, as whom, and what stood in the way."""

from collections.abc import Sequence
from pathlib import Path

from asking import Answer
from attack import Outcome, Section

PATH = Path(__file__).resolve().parents[3] / "docs" / "attacks.md"
_HEAD = """\
# What was tried against the boundary

Written by `TIPHYS_ATTACKS=write pytest tests/cluster/attacks`, compared by every other run: each
line is a request to a real Kubernetes API server, with Argo's definitions, the chart's rights,
templates and policies, and no service running. [boundary.md](boundary.md) says what the policies
are for.

**Own rights**: with the attacker's real token and exactly the chart's Roles. **Every right**: as
the same user in a group that is bound to `cluster-admin`, so that RBAC refuses nothing and
admission stands alone. RBAC alone refuses what is marked so. An `administrator` here is somebody
with every right who is no publisher; `collector` is Kubernetes' garbage collector; `act-unknown` an
account among the runs that no action has; `unbound` a token that was not made for a pod. Where
several policies refuse, the API server names any of them, and this list says `admission`.
"""


def written(
    sections: Sequence[Section], outcomes: Sequence[Outcome], let_through: Sequence[Outcome]
) -> str:
    """Give the document; nothing in it depends on the time or the machine."""
    requests = sum(len(one.own) + len(one.wide) for one in outcomes)
    parts = [_HEAD, f"{len(outcomes)} attacks, {requests} requests, all of them refused.\n"]
    for title, sentence, _ in sections:
        rows = [_row(one) for one in outcomes if one.section == title]
        parts += [f"## {title}\n", *([f"{sentence}\n"] if sentence else []), _table(rows)]
    parts += ["## What goes through\n", "Dry runs of what is really done.\n"]
    rows = [
        f"| {one.attack.title} | {one.attack.who} | {len(one.attack.requests)} |"
        for one in let_through
    ]
    parts.append("\n".join(["| what | as | forms |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _table(rows: Sequence[str]) -> str:
    head = ["| what | as | forms | own rights | every right |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def _row(one: Outcome) -> str:
    own = _walls(one.own, certain=one.certain(wide=False)) or "no token"
    alone = "RBAC alone refuses" if one.attack.rbac_alone else "the same"
    wide = _walls(one.wide, certain=one.certain(wide=True)) or alone
    forms = len(one.attack.requests)
    return f"| {one.attack.title} | {one.attack.who} | {forms} | {own} | {wide} |"


def _walls(answers: Sequence[Answer], *, certain: bool) -> str:
    named = (answer.wall.replace("|", "\\|") for answer in answers)
    return "<br>".join(dict.fromkeys(_unnamed(wall) if not certain else wall for wall in named))


def _unnamed(wall: str) -> str:
    return "admission" if ": " in wall else wall
