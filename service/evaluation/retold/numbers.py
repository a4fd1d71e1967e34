"""Reads quantities of retold evidence: rises and falls, rows of `kubectl get`, ages, counts."""

import re
from collections.abc import Sequence
from typing import Final

from tiphys.service.evaluation.retold.words import Item

_NUMBER: Final = r"(\d[\d,]*(?:\.\d+)?)[ ]?(k|m|million|thousand|%|[a-z]{1,5}(?:/s)?)?"
_CHANGE: Final = re.compile(
    _NUMBER
    + r"[ ](?:up |and now |rising |climbing |then )?to[ ]"
    + r"(?:about |over |around |nearly |more than |almost )?"
    + _NUMBER
)
_THEN: Final = re.compile(
    _NUMBER
    + r" (?:until|till|before|up to)\b[^,;]{0,30}[,;] ?(?:then |now |and )?"
    + _NUMBER
    + r"|"
    + _NUMBER
    + r"[,;] ?(?:then |now )?"
    + _NUMBER
    + r" (?:since|from|after|now)\b"
)
_USUAL: Final = re.compile(
    _NUMBER
    + r"(?: ?/ ?\w{1,8}| \w{1,12}){0,3},? \(?(?:normally|usually|usual|normal|typically|against"
    r"|instead of|vs\.?|versus|up from|before|yesterday|last week|the week before|baseline"
    r"|otherwise)"
    r"(?: is| was| of| it is| about| the usual| a usual){0,2}:? (?:about |around )?" + _NUMBER
)
_FLOW: Final = re.compile(
    r"(?:in|inflow|arriv\w{1,4}|incoming|produced|enqueued|in rate) "
    + _NUMBER
    + r".{0,20}?(?:out|outflow|done|processed|consumed|handled|served|out rate|finished) "
    + _NUMBER
)
_EACH: Final = re.compile(
    r"\b(?:by|per|each|every) "
    r"(pod|replica|instance|member|broker|shard|worker|node|host|consumer)s?\b"
)
_FIGURE: Final = re.compile(r"(?<![\w.:/-])" + _NUMBER + r"(?![\w:/-])")
_BUDGET: Final = re.compile(r"minavailable\D{0,4}(\d{1,3})\b(?!%)")
_THERE: Final = re.compile(
    r"(?:currenthealthy|current healthy|replicas)\D{0,4}(\d{1,3})\b"
    r"|(\d{1,3})/\2\b|\b(\d{1,3}) replicas?"
)
_ROW: Final = re.compile(r"(?<![\d./])(\d{1,3})/(\d{1,3})(?![\d/%]| nodes)")
_AGE: Final = re.compile(
    r"\b(\d{1,4}) ?(s|m|min|h|hours?|d|days?|w|weeks?|months?)\b(?: (?:old|ago))?"
)
_MINUTES: Final = {"s": 1 / 60, "m": 1.0, "min": 1.0, "h": 60.0, "hour": 60.0, "hours": 60.0}
_UNITS: Final = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "s": 1e3, "ms": 1.0}
_BACK: Final = re.compile(
    r"(?<![\d:.])(\d[\d,]*(?:\.\d+)?)(?: ?(k|m|million|thousand)\b| ?[a-z%]{1,5})?"
    r" (?:since|again|now)\b"
)
_PLAIN_NUMBER: Final = re.compile(r"(?<![\d:.])\d[\d,]*(?:\.\d+)?(?![\d:])")
_SECONDS: Final = re.compile(r"(?<![\d:.])(\d{1,4}(?:\.\d{1,3})?) s\b")
_FORMER: Final = re.compile(
    r"\b(?:was|were|until|before)\b.{0,40}\d|\b(?:was|were|said) .{1,60} before\b"
)
RISE: Final = 1.5
YOUNG: Final = 6 * 60.0
"""Minutes; a revision of that age is young, where the trouble is as young."""


def rises(text: str) -> bool:
    """Tell whether a quantity is said to have grown by half at least."""
    for match in _CHANGE.finditer(text):
        before, after = _value(match[1], match[2], match[4]), _value(match[3], match[4], "")
        if after > 0 and after >= RISE * before:
            return True
    return any(now >= RISE * before and now > 0 for before, now in _compared(text))


def _compared(text: str) -> list[tuple[float, float]]:
    """Give what is told as it was, or usually is, with what it is now."""
    found: list[tuple[float, float]] = []
    for m in _THEN.finditer(text):
        one = 1 if m[1] else 5
        pair = (_value(m[one], m[one + 1], m[one + 3]), _value(m[one + 2], m[one + 3], ""))
        found.append(pair)
    for pattern in (_USUAL, _FLOW):
        found += [
            (_value(m[3], m[4], ""), _value(m[1], m[2], m[4])) for m in pattern.finditer(text)
        ]
    return found


def _lowered(text: str) -> bool:
    pairs = [(_value(m[1], m[2], m[4]), _value(m[3], m[4], "")) for m in _CHANGE.finditer(text)]
    return any(before >= RISE * after for before, after in pairs)


def falls_back(text: str) -> bool:
    """Tell whether a quantity is said to have been high and to be lower again since a time."""
    match = _BACK.search(text)
    if not match:
        return False
    if "ms" in text:
        # `3 s until then, 90 ms since`
        text = _SECONDS.sub(lambda m: f"{float(m[1]) * 1000:.0f} ms", text)
        match = _BACK.search(text) or match
    before = [float(n.replace(",", "")) for n in _PLAIN_NUMBER.findall(text[: match.start()])]
    now = _value(match[1], match[2], "")
    # `up` and the like are well at 1 and ill at 0.
    return bool(before) and (now * RISE <= max(before) or (now == 1 and max(before) == 0))


def _value(number: str, unit: str | None, other: str | None) -> float:
    scale = _UNITS.get(unit or "", 1.0) if (unit or "") != (other or "") or unit else 1.0
    return float(number.replace(",", "")) * scale


def minutes(text: str) -> list[float]:
    """Give the ages that a text names, in minutes."""
    found: list[float] = []
    for match in _AGE.finditer(text):
        unit = match[2]
        found.append(float(match[1]) * _MINUTES.get(unit, 1440.0))
    return found


_HARM: Final = re.compile(
    r"\berrors?\b|latency|\b5xx\b|\bp9\d\b|\bslo\b|\busers?\b|requests failed|availability|impact"
    r"|indicator"
)
_NONE: Final = re.compile(
    r"(?:all |both )?(?:is |are )?(?:normal|none|unchanged|flat|fine|as (?:usual|always|yesterday)"
    r"|no change|healthy|steady|0(?:\.0+)?(?: %)?)"
    r"(?: (?:for|since|throughout|all day|in|on)\b.{0,30})?"
)


def _nothing_suffers(item: Item) -> bool:
    """Tell whether a question about harm is answered by nothing but `normal`, `0` and the like."""
    if not _HARM.search(item.question) or not item.statements:
        return False
    return all(
        _NONE.fullmatch(s.text) or ("within_objective" in s.said and "#rises" not in s.said)
        for s in item.statements
    )


def marks_of(item: Item) -> set[str]:
    """Give what the numbers of an item say, as marks that the readings may ask for."""
    found: set[str] = set()
    for statement in item.statements:
        if rises(statement.text):
            statement.said.add("#rises")
            found.add("#rises")
        if statement.said & {"config", "t_setting", "at_ceiling"} and _lowered(statement.text):
            found.add("#lowered")
        if _falls_step_by_step(statement.text):
            found.add("#falls")
        if falls_back(statement.text):
            statement.said.add("#falls_back")
            found.add("#falls_back")
        if "within_objective" in statement.said:
            found.add("#harmless")
        revision = re.search(r"\brevision\b|\breplicaset\b|\brev\b|\bimage\b", statement.text)
        ages = minutes(statement.text)
        if revision and ages:
            found |= {"#young_revision"} if min(ages) <= YOUNG else {"#older_days"}
        if re.search(_FORMER, statement.text):
            found.add("#was_before")
    found |= _rows(item) | one_differs(item)
    return found | ({"#no_harm_measured", "#harmless"} if _nothing_suffers(item) else set())


def _rows(item: Item) -> set[str]:
    """Read rows of pods: `name 0/1 CrashLoopBackOff 7 3h`, or `3/3 running`."""
    found: set[str] = set()
    ill = well = 0
    ages: list[tuple[bool, float]] = []
    for statement in item.statements:
        for match in _ROW.finditer(statement.text):
            ready, wanted = int(match[1]), int(match[2])
            if wanted == 0 and ready == 0:
                found.add("#zero_replicas")
            elif ready < wanted <= 20:
                ill += 1
            elif ready == wanted:
                well += 1
            else:
                continue
            named = minutes(statement.text)
            ages += [(ready == wanted, max(named))] if named else []
    found |= {"#row_not_ready"} if ill else set()
    found |= {"#one_row_ill"} if ill == 1 else set()
    found |= {"#other_rows_ready"} if well else set()
    found |= {"#all_rows_ill"} if ill > 1 and not well else set()
    young = [age for ready, age in ages if not ready]
    old = [age for ready, age in ages if ready]
    if young and old and max(young) * 4 < min(old):
        found.add("#older_rows_ready")
    return found


def _falls_step_by_step(text: str) -> bool:
    found = [_value(m[1], m[2], "") for m in _FIGURE.finditer(text)]
    return len(found) >= 3 and found[0] >= RISE * found[-1] and found == sorted(found)[::-1]


def one_differs(item: Item) -> set[str]:
    """Tell whether figures that are asked for by pod or by node stand apart for one of them."""
    asked = _EACH.search(item.question)
    figures = sorted(_value(m[1], m[2], "") for m in _FIGURE.finditer(item.answer))
    if not asked or len(figures) < 2 or figures[-1] < 5 * figures[-2] or not figures[-1]:
        return set()
    return {"#one_node_differs"} if asked[1] in {"node", "host"} else {"#one_pod_differs"}


def budget_binds(items: Sequence[Item]) -> bool:
    """Tell whether a disruption budget asks for as many pods as there are."""
    every = " ".join(item.answer for item in items)
    asked = _BUDGET.search(every)
    there = [int(n) for pair in _THERE.findall(every) for n in pair if n]
    return bool(asked and there) and int(asked[1]) >= max(there) if asked else False


def twice_harmless(every: Sequence[set[str]]) -> bool:
    """Tell whether two answers at least say that nothing suffers."""
    return sum("#harmless" in marks for marks in every) >= 2
