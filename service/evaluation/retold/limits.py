"""Compares what retold evidence asks for with what there is, and a figure with its limit or target.

Invariant: only figures of the same unit are compared.
"""

import re
from collections.abc import Sequence
from typing import Final

from tiphys.service.evaluation.retold.words import Item

_WORDS: Final = {"one": 1, "two": 2, "four": 4, "eight": 8, "sixteen": 16}
_COUNT: Final = r"(\d{1,4}|" + "|".join(_WORDS) + r")"
_GPU: Final = r"(?:gpus?|cards?|accelerators?|nvidia\.com/gpu)"
_ASKED: Final = re.compile(
    r"(?:asks?|asking|requests?|requested|wants?|needs?|requires?) (?:for )?(?:\w+ )?"
    rf"{_COUNT} {_GPU}"
    rf"|{_GPU}[: ]{{1,2}}{_COUNT} (?:each|per pod|in one pod|in a pod|per replica)"
    rf"|{_COUNT} {_GPU} (?:each|per pod|in one pod|in a pod|in a single pod|per replica)"
)
_THERE: Final = re.compile(
    r"(?:machines?|nodes?|node type|type|hosts?|instances?|shape|largest|biggest|no node)\b"
    rf"[^;.\d]{{0,40}}?\b(?:has|have|with|of|holds?|carry|carries|offers?|:|more than|only|is)"
    rf" (?:only |at most |just )?{_COUNT}(?: {_GPU})?"
    r"(?= each| gpu| card|$|[,;.)]| only| at most| per)"
)
_USED_OF_TARGET: Final = re.compile(
    r"(?<![\d.])(\d{1,3}) ?%? ?(?:/|of a target of|against a target of|target) ?(\d{1,3}) ?%"
)
_QUANTITY: Final = r"(?<![\w.])(\d[\d,]*(?:\.\d+)?) ?([a-zµ%]{1,6}|)"
_SET: Final = re.compile(rf"{_QUANTITY} to {_QUANTITY}(?![\w.])")
_SIZED: Final = re.compile(
    r"(?<![\w.:])(\d[\d,]*(?:\.\d+)?) ?(kb|kib|ki|k|mb|mib|mi|m|gb|gib|gi|g)\b"
)
_SIZES: Final = {"k": 1.0, "m": 1024.0, "g": 1024.0 * 1024}
_LIMIT: Final = re.compile(
    r"limit|max|ceiling|cap\b|quota|allowed|buffer|(?:larger|bigger|longer|more) than|above|beyond"
)
_SHARE: Final = re.compile(
    r"(?<![\w.])(\d{1,3}(?:\.\d+)?) ?% (?:to|until .{0,20}?,|at .{0,20}?,) ?(?:now |and |then )?"
    r"(\d{1,3}(?:\.\d+)?) ?%"
)
_CLOCK: Final = re.compile(r"(?<![\d:.])\d{1,2}:\d\d(?![\d:])|\b(?:this morning|an hour|minutes)\b")
_STEP: Final = 20
"""Percent points within a day; a volume that evenly fills takes longer."""
_PARTITIONS: Final = re.compile(r"\b(\d{1,4}) partitions|partitions:? (\d{1,4})\b")
_CONSUMERS: Final = re.compile(
    r"\b(\d{1,4}) (?:consumers|replicas|pods|workers)"
    r"|(?:consumers|replicas|pods|workers):? (\d{1,4})\b"
)
MARGIN: Final = 1.1
"""A target that is passed by less is met."""


def marks_of(items: Sequence[Item]) -> set[str]:
    """Give what figures say of limits, as marks that the tables may ask for."""
    found: set[str] = set()
    for item in items:
        asked_for = item.topic & {"config", "t_setting"}
        for statement in item.statements:
            for match in _USED_OF_TARGET.finditer(statement.text):
                if int(match[1]) > MARGIN * int(match[2]) > 0:
                    found.add("#over_target")
            if _CLOCK.search(statement.text) and any(
                abs(float(m[1]) - float(m[2])) >= _STEP for m in _SHARE.finditer(statement.text)
            ):
                found.add("#fills_today")
            if asked_for and _is_set(statement.text):
                statement.said |= {"t_set", "changed"}
    return found | _fits(items) | _limits(items) | _partitions(items)


def _is_set(text: str) -> bool:
    return any(m[2] == m[4] or not m[4] for m in _SET.finditer(text))


def _fits(items: Sequence[Item]) -> set[str]:
    every = "; ".join(item.answer for item in items)
    asked = [_number(n) for groups in _ASKED.findall(every) for n in groups if n]
    there = [_number(n) for n in _THERE.findall(every)]
    return {"#asks_too_much"} if asked and there and max(asked) > max(there) else set()


def _partitions(items: Sequence[Item]) -> set[str]:
    """Tell whether there is a consumer for each partition: one more would have none."""
    every = "; ".join(f"{item.question}: {item.answer}" for item in items)
    shares = [int(n) for pair in _PARTITIONS.findall(every) for n in pair if n]
    takers = [int(n) for pair in _CONSUMERS.findall(every) for n in pair if n]
    full = shares and takers and max(takers) >= max(shares)
    return {"#partitions_used_up"} if full else set()


def _limits(items: Sequence[Item]) -> set[str]:
    """Tell whether something is larger than what a setting allows."""
    limits: list[float] = []
    sizes: list[float] = []
    for item in items:
        for statement in item.statements:
            for match in _SIZED.finditer(statement.text):
                size = float(match[1].replace(",", "")) * _SIZES[match[2][0]]
                near = statement.text[max(0, match.start() - 30) : match.start()]
                (limits if _LIMIT.search(near) else sizes).append(size)
    over = any(limit < size <= 20 * limit for limit in limits for size in sizes)
    return {"#over_limit"} if over else set()


def _number(word: str) -> int:
    return int(word) if word.isdigit() else _WORDS[word]
