"""What lines of logs, events and messages mean, by one table: `signatures.yaml` beside this module.

Invariants: lines are data, they can only be one of these signs; a line is cut before it is read,
and no pattern repeats within a repeat, so that no line takes long.
"""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Final

import yaml

MAX_LINE: Final = 400
"""Characters of a line that are read."""
MAX_LINES: Final = 200


class Sign(StrEnum):
    """What a line can mean."""

    CERTIFICATE = "certificate"
    CONNECTIONS = "connections"
    CREDENTIALS = "credentials"
    DATA = "data"
    DEPENDENCY = "dependency"
    DISK_FULL = "disk-full"
    IMAGE_MISSING = "image-missing"
    IMAGE_REFUSED = "image-refused"
    MEMORY = "memory"
    NAMES = "names"
    POLICY = "policy"
    PROGRAM = "program"
    READ_ONLY = "read-only"
    STORAGE = "storage"


@cache
def _table() -> Mapping[Sign, re.Pattern[str]]:
    written = (files(__package__ or "") / "signatures.yaml").read_text(encoding="utf-8")
    return {
        Sign(name): re.compile("|".join(some)) for name, some in yaml.safe_load(written).items()
    }


def signs_in(lines: Iterable[str]) -> set[Sign]:
    """Give every sign that any of the lines shows."""
    found: set[Sign] = set()
    for number, line in enumerate(lines):
        if number >= MAX_LINES:
            break
        low = line[:MAX_LINE].lower()
        found |= {sign for sign, pattern in _table().items() if pattern.search(low)}
    return found
