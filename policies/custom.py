"""Rules that a team writes: a CEL expression must hold, or its message denies or asks.

The shape is that of a Kubernetes ValidatingAdmissionPolicy. Invariants: an expression that fails,
whatever its effect, denies; a rule that allows meets the need for one person's approval that comes
of autonomy and risk, and nothing else: no denial, no need of another rule, none for two people or
for somebody by name.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated, ClassVar, Final

from pydantic import Field, field_validator

from tiphys.policies.expressions import (
    Expression,
    ExpressionFailedError,
    Scope,
    compile_expression,
)
from tiphys.policies.model import Noun
from tiphys.policies.request_view import REQUEST_PATHS, scope_of
from tiphys.policies.rule import ALLOWED, Request, Rule, RuleName
from tiphys.policies.verdict import Allowed, Denied, NeedsApproval, RuleVerdict, Verdict

MAX_MESSAGE: Final = 500
"""Characters of what a rule says."""

RELIEVABLE: Final = frozenset({RuleName.AUTONOMY, RuleName.RISK})
"""Rules that say how far Tiphys goes alone; a rule that allows may say it more finely."""


class Effect(StrEnum):
    """What a rule does."""

    DENY = "deny"
    """Where the expression does not hold, it is refused."""
    ASK = "ask"
    """Where the expression does not hold, people are asked."""
    ALLOW = "allow"
    """Where the expression holds, one person need not be asked; where not, it says nothing."""


@dataclass(frozen=True)
class CustomRule(Rule):
    """One of the policy's own rules."""

    name: ClassVar[RuleName] = RuleName.CUSTOM

    called: str
    expression: Expression
    message: str
    effect: Effect
    when: Expression | None = None
    """Where this does not hold the rule says nothing."""
    message_expression: Expression | None = None
    """Gives the message; where it fails or gives no line of text, `message` stands."""
    people: int = 1
    """How many must agree, where it asks."""
    by: tuple[str, ...] = ()
    """Names or teams of whom one must be among them, where it asks."""

    @cached_property
    def title(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`custom/` and the name the policy gave."""
        return f"{self.name}/{self.called}"

    def judge(self, request: Request) -> Verdict:
        """Allow if the expression holds; raises where one fails, which denies."""
        scope = scope_of(request)
        if self.when is not None and not self.when.holds(scope):
            return ALLOWED
        holds = self.expression.holds(scope)
        if self.effect is Effect.ALLOW:
            return Allowed(reason=self._words(scope)) if holds else ALLOWED
        if holds:
            return ALLOWED
        if self.effect is Effect.ASK:
            return NeedsApproval(reason=self._words(scope), people=self.people, by=self.by)
        return Denied(reason=self._words(scope))

    def _words(self, scope: Scope) -> str:
        """Give the message; an expression's may carry outside text, so it is one bounded line."""
        if self.message_expression is None:
            return self.message
        try:
            said = self.message_expression.evaluate(scope)
        except ExpressionFailedError:
            return self.message
        if not isinstance(said, str) or not said.strip() or not said.isprintable():
            return self.message
        return said if len(said) <= MAX_MESSAGE else said[: MAX_MESSAGE - 1] + "…"


def relieved(verdicts: Iterable[RuleVerdict]) -> tuple[RuleVerdict, ...]:
    """Meet what the rules that allow may meet; what it was stays readable in the reason."""
    answers = tuple(verdicts)
    allows = [
        answer.rule
        for answer in answers
        if isinstance(answer.verdict, Allowed)
        and answer.verdict.reason
        and answer.rule.startswith(f"{RuleName.CUSTOM}/")
    ]
    return tuple(_relieved(answer, allows[0]) for answer in answers) if allows else answers


def _relieved(answer: RuleVerdict, by: str) -> RuleVerdict:
    need = answer.verdict
    if answer.rule not in RELIEVABLE or not isinstance(need, NeedsApproval):
        return answer
    if need.people > 1 or need.by:
        return answer
    met = Allowed(reason=f"{by} allows it, although {need.reason}")
    return answer.model_copy(update={"verdict": met})


# --- as the file spells them ----------------------------------------------------------------------

_Text = Annotated[str, Field(min_length=1, max_length=MAX_MESSAGE)]
_Who = Annotated[str, Field(min_length=1, max_length=200)]


class CustomEntry(Noun):
    """One entry of `custom`, before its expressions are compiled."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    when: str | None = None
    expression: str
    message: _Text
    messageExpression: str | None = None  # noqa: N815  as ValidatingAdmissionPolicy spells it
    effect: Effect = Effect.DENY
    people: Annotated[int | None, Field(ge=1, le=2)] = None
    by: Annotated[tuple[_Who, ...], Field(max_length=20)] = ()

    @field_validator("by")
    @classmethod
    def _each_once(cls, by: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(by)) < len(by):
            raise ValueError("somebody stands there twice")
        return by

    def misplaced(self) -> str | None:
        """Name a key that makes no sense with the effect, or None."""
        if self.effect is Effect.ASK:
            return None
        return "people" if self.people is not None else "by" if self.by else None

    def sources(self) -> dict[str, str]:
        """Give the expressions by their keys."""
        given = {
            "when": self.when,
            "expression": self.expression,
            "messageExpression": self.messageExpression,
        }
        return {key: source for key, source in given.items() if source is not None}

    def place(self, key: str) -> str:
        """Say where an expression stands, for messages."""
        return f"{RuleName.CUSTOM}/{self.name}" + ("" if key == "expression" else f".{key}")

    def compiled(self, key: str) -> Expression:
        """Compile one of `sources`; raises `ExpressionInvalidError`."""
        return compile_expression(self.sources()[key], where=self.place(key), known=REQUEST_PATHS)

    def rule(self, expressions: dict[str, Expression]) -> CustomRule:
        """Give the rule of these compiled expressions."""
        return CustomRule(
            self.name,
            expressions["expression"],
            self.message,
            self.effect,
            when=expressions.get("when"),
            message_expression=expressions.get("messageExpression"),
            people=self.people or 1,
            by=self.by,
        )
