"""Tells of each answer whether it speaks of trouble, of something well, or explains the trouble.

Invariants: a trouble that is denied is none; an answer that names trouble and explains nothing is
never taken for a quiet one; an answer of which nothing was recognised is no sign of health.
"""

import re
from collections.abc import Sequence
from typing import Final

from tiphys.service.evaluation.retold.words import Item, Statement

_EXPLAINS: Final = frozenset(
    {
        "healthy_now", "by_design", "maintenance", "upgrade_running", "autoscaler_acts",
        "draining_backlog", "takes_time", "finished_well", "completed_work", "corrected",
        "taken_back", "on_purpose", "as_always", "#falls_back", "#in_window",
    }
)  # fmt: skip
_CALM: Final = frozenset(
    {
        "within_objective", "current_well", "whole_again", "siblings_well", "other_side_well",
        "node_sound", "other_nodes_fine", "quorum", "progress", "advances", "no_release", "hint",
        "test_place", "others_room",
    }
)  # fmt: skip
_ALARMS: Final = frozenset(
    {"trouble", "#rises", "users_suffer", "hurting", "never_ready", "t_too_few"}
)
_OF: Final = re.compile(
    r"\b(\d{1,4}) (?:of|out of) (\d{1,4})\b|(?<![\d./])(\d{1,3})/(\d{1,3})(?![\d/%])"
)
_WHOLE: Final = re.compile(
    r"ready|running|available|healthy|up\b|members|replicas|allocatable|answer"
)
_PLAIN_CALM: Final = re.compile(
    r"(?:all |both |each |still )?(?:is |are )?(?:normal|none|no|nothing|unchanged|flat|fine"
    r"|steady|healthy|empty|ok|as (?:usual|always|ever|yesterday|before)"
    r"|0(?:\.0+)?(?: ?%)?"
    r"|ready|running|answers|reachable|true|yes)"
    r"(?: (?:for|since|throughout|all day|in|on|today)\b.{0,30})?"
)


def _part(statement: Statement) -> int:
    """Give 1 where all of something is there, -1 where some is missing, else 0."""
    found = 0
    for match in _OF.finditer(statement.text):
        here, wanted = int(match[1] or match[3]), int(match[2] or match[4])
        if not _WHOLE.search(statement.text) and match[1]:
            continue
        if here < wanted:
            return -1
        found = 1 if wanted else found
    return found


def _of(statement: Statement) -> str:
    part = _part(statement)
    if statement.said & _EXPLAINS:
        return "explained"
    if part < 0 or statement.said & _ALARMS:
        return "alarmed"
    denied = "trouble" in statement.denied
    if part > 0 or denied or statement.said & _CALM or _PLAIN_CALM.fullmatch(statement.text):
        return "calm"
    return ""


def tone(item: Item) -> str:
    """Give `alarmed`, `explained`, `calm`, or nothing where no more is known."""
    tones = [_of(statement) for statement in item.statements]
    if "explained" in tones:
        return "explained"
    if "alarmed" in tones:
        return "alarmed"
    return "calm" if tones.count("calm") * 2 >= len(tones) > 0 else ""


def marks_of(items: Sequence[Item]) -> set[str]:
    """Give what the answers say together."""
    tones = [tone(item) for item in items]
    found = {f"#{one}" for one in tones if one}
    if "" not in tones and "alarmed" not in tones:
        found.add("#all_quiet")
        if "explained" in tones or len(tones) > 1:
            found.add("#surely_quiet")
    return found
