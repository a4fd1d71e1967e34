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
_STILL: Final = r",? ?(?:until|till|before|up to|up until|through|yesterday|last|earlier|the week)\b"
_COUNTED: Final = re.compile(
    r"replica|scal|\bpods\b|\bdeploy|\bhpa\b|autoscal|statefulset|workers|consumers|\d/\d"
)
_BEFORE: Final = (
    re.compile(rf"\b(?:had|have|has|with|at|ran|running|run|were|was|of|on) {_N}{_THINGS}{_STILL}"),
    re.compile(rf"\b{_N} (?:replicas|pods|workers|consumers|instances|copies){_STILL}"),
    re.compile(rf"(?<![\d.:/]){_N}{_STILL} (?:\d{{1,2}}:\d\d|this|yesterday|last|noon|monday"
               r"|tuesday|wednesday|thursday|friday|saturday|sunday)"),
    re.compile(rf"\b(?:scaled|reduced|lowered|cut|shrunk|down|set|brought|replicas)\b.{{0,60}}?"
               rf"\bfrom {_N}{_THINGS} to\b"),
    re.compile(rf"\breplicas:?,? \(?(?:was|were|before:?|previously|formerly) {_N}"),
    re.compile(rf"\b(?:was|were|used to (?:be|have|run|run with|run on)|instead of|rather than"
               rf"|previously|formerly|originally) {_N}{_THINGS}(?=$|[,;.)]| (?:for|since|all|and))"),
    re.compile(rf"(?<![\d.:/]){_N} to (?:\d{{1,3}} to )+\d{{1,3}}\b"),
    re.compile(rf"(?<![\d.:/]){_N}{_THINGS} (?:since|for|all) (?:january|february|march|april|may"
               rf"|june|july|august|september|october|november|december|spring|summer|autumn"
               rf"|winter|weeks|months|a year|years|year|month|week)\b"),
    re.compile(rf"\b(?:floor|baseline|minimum|min replicas|minreplicas|usual number|normal number"
               rf"|agreed number|should be|supposed to be|meant to be|normally|usually)\b"
               rf"(?: is| are| of| at|:)? {_N}{_THINGS}(?=$|[,;.)])"),
)  # fmt: skip
_HPA: Final = re.compile(r"<?unknown>?/\d+ ?% (\d{1,3}) (\d{1,3}) \d{1,3}\b")


def wanted_now(every: str) -> int:
    """Give the replicas that the evidence names first, or one."""
    found = re.search(r"(\d{1,3}) (?:replicas|pods|machines|nodes)", every)
    return int(found[1]) if found else 1


def before(items: Sequence[Item]) -> int:
    """Give the replicas of before, or that there should be; 0 where nothing or no single one says."""
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
