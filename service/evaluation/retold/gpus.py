"""Reads Xids of retold evidence, and asks the table of Xids (policies/xid) what they need."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from tiphys.agents.gpu_facts import NOT_NAMED, advice
from tiphys.policies.model import Json
from tiphys.policies.xid import REPEATS, Remedy, XidEvent, judge, remedy_for
from tiphys.service.evaluation.retold.words import Item

_XIDS: Final = re.compile(
    r"\bxids?\b(?: errors?| code| of)?[ ]{0,2}(?:\([^)]{0,40}\):?|:)?[ ]{0,2}"
    r"(\d{1,3}(?:(?:, | and | or |/| then | & )(?:xid )?\d{1,3}\b"
    r"(?! (?:times|gpus?|h\b|min|s\b|of\b)))*)"
)
_DENIED: Final = re.compile(r"\b(?:no|not|none|without|never|neither|nor)\b[^,;]{0,25}$")
_WORDS: Final = {
    "once": 1, "one": 1, "twice": 2, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6,
    "seven": 7, "eight": 8, "nine": 9, "ten": 10, "dozen": 12,
}  # fmt: skip
_TIMES: Final = re.compile(
    r"\b(\d{1,3}|" + "|".join(_WORDS) + r")(?: times|x\b)|\b(twice|once)\b|\bx(\d{1,3})\b"
)
_AT_ONCE: Final = re.compile(
    r"within (?:one|a|1|the same) (?:second|s|min|minute)|at once|same second|in one burst"
)
_ONE_PLACE: Final = re.compile(
    r"same (?:gpc|tpc|sm|gpu|device|card|unit|slot|bank)|one (?:gpc|tpc|place)"
    r"|different (?:process|pid|pod|job|application)"
)
_GONE: Final = re.compile(
    r"(?:job|process|pod|notebook|program|application|task|it)\b(?:(?!\bnot\b)[^.;]){0,50}"
    r"\b(?:withdrawn|cancell?ed|deleted by|closed|removed by|no longer exists|was stopped by"
    r"|restarted since|replaced since|has since been)\b|\balready (?:restarted|replaced)\b"
)
"""The program that it was a fault of is no more."""
_USER: Final = re.compile(
    r"\bpid\b|\bname=|\bprocess\b|\bpod\b|\bjob\b|\bapplication\b|\btraining\b"
)


def counted(items: Sequence[Item], labels: Mapping[str, str]) -> Counter[int]:
    """Give how often each Xid is said to have been logged; what is denied is left out."""
    found: Counter[int] = Counter()
    for item in items:
        for statement in item.statements:
            for match in _XIDS.finditer(statement.text):
                if _DENIED.search(statement.text[: match.start()]):
                    continue
                times = 1 if _AT_ONCE.search(statement.text) else _count(statement.text)
                for code in re.findall(r"\d+", match[1]):
                    found[int(code)] = max(found[int(code)], times)
    label = labels.get("xid", labels.get("XID", ""))
    if label.isdigit():
        found[int(label)] = max(found[int(label)], 1)
        if found.total() == 1 or len(found) == 1:
            every = " ".join(i.answer for i in items)
            if not _AT_ONCE.search(every):
                found[int(label)] = max(found[int(label)], _count(every))
    return found


def _count(text: str) -> int:
    match = _TIMES.search(text)
    if not match:
        return 1
    word = match[1] or match[2] or match[3]
    return int(word) if word.isdigit() else _WORDS[word]


def gpu_facts(items: Sequence[Item], labels: Mapping[str, str]) -> tuple[dict[str, Json], set[str]]:
    """Give the fact group `gpu` and the symptoms that follow; both empty without an Xid."""
    xids = counted(items, labels)
    if not xids:
        return {}, set()
    node = labels.get("node") or labels.get("instance") or labels.get("Hostname") or "node"
    gpu = labels.get("gpu_uuid") or labels.get("UUID") or labels.get("gpu") or NOT_NAMED
    now = datetime(2026, 1, 1, tzinfo=UTC)
    events = [
        XidEvent(at=now - timedelta(hours=i), node=node, gpu=gpu, xid=code)
        for code, times in xids.items()
        for i in range(min(times, 24))
    ]
    (finding,) = judge(events).values()
    codes: list[Json] = [*finding.codes]
    facts: dict[str, Json] = {
        "node": node, "device": gpu, "remedy": finding.remedy.name.lower(),
        "reason": finding.reason, "codes": codes, "seen": [*sorted(xids)],
        "advice": advice(finding.codes), "unclear": "",
    }  # fmt: skip
    every = " ".join(i.answer for i in items)
    return facts, _symptoms(finding.remedy, xids, every)


def _symptoms(remedy: Remedy, xids: Counter[int], every: str) -> set[str]:
    alone = max(remedy_for(code) for code in xids)
    repeats = any(c in REPEATS and xids[c] > 1 for c in xids)
    # More than once in one unit of the chip and under different programs is not a program's.
    if (
        repeats
        and alone <= Remedy.RESTART_APPLICATION
        and (_ONE_PLACE.search(every) or remedy > alone)
    ):
        return {"gpu_repeats"}
    if remedy is Remedy.NOTHING or (remedy is Remedy.RESTART_APPLICATION and _GONE.search(every)):
        return {"gpu_needs_nothing"}
    if remedy is Remedy.RESTART_APPLICATION:
        return {"gpu_application_fault"} if _USER.search(every) else set()
    if remedy is Remedy.DRAIN_AND_RESET:
        return {"gpu_needs_drain"}
    return {"gpu_needs_new_machine"} if remedy is Remedy.REPLACE_NODE else set()
