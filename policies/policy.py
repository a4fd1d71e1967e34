"""A policy as it was read: the rules' settings and the limits that the service keeps.

Invariant: a policy can set a rule's settings, never leave a rule out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import TypeVar

from pydantic import Field

from tiphys.policies.custom import CustomRule
from tiphys.policies.model import Noun, Severity
from tiphys.policies.rule import Rule, RuleName

R = TypeVar("R", bound=Rule)


class Verification(Noun):
    """How verify judges."""

    hold_seconds: int = Field(default=30, ge=0, le=3600)
    """How long healthy must last before it counts."""


class ApprovalLimits(Noun):
    """How long a person has."""

    expiry_seconds: int = Field(default=900, ge=1, le=86_400)
    """An approval, and the question for one, is void after this."""


class Deadlines(Noun):
    """How long an escalated incident may wait for a person to acknowledge it, by severity."""

    critical_seconds: int = Field(default=300, ge=1)
    warning_seconds: int = Field(default=1800, ge=1)
    info_seconds: int = Field(default=14_400, ge=1)

    def of(self, severity: Severity) -> timedelta:
        """Give the deadline for a severity."""
        seconds: Mapping[Severity, int] = {
            Severity.CRITICAL: self.critical_seconds,
            Severity.WARNING: self.warning_seconds,
            Severity.INFO: self.info_seconds,
        }
        return timedelta(seconds=seconds[severity])


class Attempts(Noun):
    """How often one incident may be tried."""

    per_incident: int = Field(default=3, ge=1, le=10)
    """After this many a person must decide."""


@dataclass(frozen=True)
class Policy:
    """Everything that a policy file says; the default allows only suggestions."""

    name: str = "built-in"
    version: str = "0"
    sha256: str = "0" * 64
    """Of the file's text."""
    settings: Mapping[RuleName, Rule] = field(default_factory=dict[RuleName, Rule])
    custom: tuple[CustomRule, ...] = ()
    verification: Verification = field(default_factory=Verification)
    approval: ApprovalLimits = field(default_factory=ApprovalLimits)
    deadlines: Deadlines = field(default_factory=Deadlines)
    attempts: Attempts = field(default_factory=Attempts)

    @property
    def identity(self) -> str:
        """Name, version and hash, as plans and judgements record it."""
        return f"{self.name} {self.version} sha256:{self.sha256}"

    def rule(self, kind: type[R]) -> R:
        """Give a rule with this policy's settings, or with its defaults."""
        found = self.settings.get(kind.name)
        return found if isinstance(found, kind) else _default(kind)


@cache
def _default(kind: type[R]) -> R:
    """Make a rule with its defaults once: it is frozen, and every judgement asks for dozens."""
    return kind()
