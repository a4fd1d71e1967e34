"""Rules over what retold evidence says, such as `statement a + b - c`, as the tables write them.

Invariant: what is denied supports no rule that does not ask for the denial.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_TERM: Final = re.compile(r'(\+|-)?\s*(no:)?("?[#=]?[a-z_]+"?)')


@dataclass(frozen=True)
class Rule:
    """What has to be said, and what must not be, within one scope."""

    scope: str
    said: frozenset[str]
    unsaid: frozenset[str]
    denied: frozenset[str]
    undenied: frozenset[str]


@dataclass(frozen=True)
class Told:
    """What is said, by scope, and what is denied anywhere."""

    scopes: Mapping[str, Sequence[set[str]]]
    denied: set[str]

    def holds(self, rule: Rule) -> bool:
        """Tell whether a rule holds in some place of its scope."""
        if not rule.denied <= self.denied or rule.undenied & self.denied:
            return False
        return any(rule.said <= said and not rule.unsaid & said for said in self.scopes[rule.scope])


def rule(line: str) -> Rule:
    """Read a rule as a table has it."""
    scope, _, rest = line.partition(" ")
    groups: dict[tuple[bool, bool], set[str]] = {
        (no, minus): set() for no in (False, True) for minus in (False, True)
    }
    for sign, no, term in _TERM.findall(rest):
        groups[bool(no), sign == "-"].add(term.strip('"'))
    said, unsaid = groups[False, False], groups[False, True]
    denied, undenied = groups[True, False], groups[True, True]
    return Rule(scope, *map(frozenset, (said, unsaid, denied, undenied)))
