"""Reads from retold evidence how many replicas there are, and how many there were or should be.

Invariant: a number of before is told only where one is named, and none where several are.
"""

import re
from collections.abc import Sequence
from typing import Final

from tiphys.service.evaluation.retold.words import Item

_WORDS: Final = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "twelve": 12, "dozen": 12,
}  # fmt: skip
_N: Final = r"(\d{1,3}|" + "|".join(_WORDS) + r")(?![\d.:%/])"
_THINGS: Final = r"(?: (?:replicas?|pods|workers|consumers|instances|copies))?"
_NO_MORE: Final = (
    r",? ?(?:until|till|before|up to|up until|through|yesterday|last|earlier|the week)\b"
)
_DAYS: Final = r"this|yesterday|last|noon|monday|tuesday|wednesday|thursday|friday|saturday|sunday"
_MONTHS: Final = (
    r"january|february|march|april|may|june|july|august|september|october|november|december"
)
_TIMES: Final = _MONTHS + r"|spring|summer|autumn|winter|weeks|months|a year|years|year|month|week"
_FRONT: Final = r"(?<![\d.:/])"
_END: Final = r"(?=$|[,;.)])"
_SCALED: Final = r"\b(?:scaled|reduced|lowered|cut|shrunk|down|set|brought|replicas)\b"
_WAS: Final = (
    r"\b(?:was|were|used to (?:be|have|run|run with|run on)|instead of|rather than|previously"
    r"|formerly|originally)"
)
_SHOULD: Final = (
    r"\b(?:floor|baseline|minimum|min replicas|minreplicas|usual number|normal number"
    r"|agreed number|should be|supposed to be|meant to be|normally|usually)\b"
)
_COUNTED: Final = re.compile(
    r"replica|scal|\bpods\b|\bdeploy|\bhpa\b|autoscal|statefulset|workers|consumers|\d/\d"
)
_BEFORE: Final = tuple(
    re.compile(one)
    for one in (
        rf"\b(?:had|have|has|with|at|ran|running|run|were|was|of|on) {_N}{_THINGS}{_NO_MORE}",
        rf"\b{_N} (?:replicas|pods|workers|consumers|instances|copies){_NO_MORE}",
        rf"{_FRONT}{_N}{_NO_MORE} (?:\d{{1,2}}:\d\d|{_DAYS})",
        rf"{_SCALED}.{{0,60}}?\bfrom {_N}{_THINGS} to\b",
        rf"\breplicas:?,? \(?(?:was|were|before:?|previously|formerly) {_N}",
        rf"{_WAS} {_N}{_THINGS}(?:{_END}|(?= (?:for|since|all|and)))",
        rf"{_FRONT}{_N} to (?:\d{{1,3}} to )+\d{{1,3}}\b",
        rf"{_FRONT}{_N}{_THINGS} (?:since|for|all) (?:{_TIMES})\b",
        rf"{_SHOULD}(?: is| are| of| at|:)? {_N}{_THINGS}{_END}",
    )
)
_HPA: Final = re.compile(r"<?unknown>?/\d+ ?% (\d{1,3}) (\d{1,3}) \d{1,3}\b")


def wanted_now(every: str) -> int:
    """Give the replicas that the evidence names first, or one."""
    found = re.search(r"(\d{1,3}) (?:replicas|pods|machines|nodes)", every)
    return int(found[1]) if found else 1


def before(items: Sequence[Item]) -> int:
    """Give the replicas of before, or that there should be; 0 where no single number is named."""
    found: set[int] = set()
    for item in items:
        for statement in item.statements:
            text = re.sub(r"\s+", " ", statement.text)
            if _COUNTED.search(text) or _COUNTED.search(item.question):
                found |= {_number(m[1]) for p in _BEFORE for m in p.finditer(text)}
        # The least that an autoscaler asks for, while it is off because of zero replicas.
        found |= {int(m[1]) for m in _HPA.finditer(re.sub(r"\s+", " ", item.answer))}
    found -= {0}
    return found.pop() if len(found) == 1 else 0


def _number(word: str) -> int:
    return int(word) if word.isdigit() else _WORDS[word]
