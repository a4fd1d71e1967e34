"""A person's pause: nothing new starts in its scope until its time is over or somebody resumes."""

from typing import ClassVar

from pydantic.dataclasses import dataclass

from tiphys.policies.rule import ALLOWED, SETTINGS, Request, Rule, RuleName
from tiphys.policies.verdict import Denied, Verdict


@dataclass(frozen=True, config=SETTINGS)
class Paused(Rule):
    """Nothing new starts where a person has paused it; unlike the stop, a pause ends by itself."""

    name: ClassVar[RuleName] = RuleName.PAUSED

    def judge(self, request: Request) -> Verdict:
        """Deny while one covers the target; which ones last, the database's clock has said."""
        lasting = request.history.pauses
        if not lasting:
            return ALLOWED
        return Denied(reason="; ".join(str(pause) for pause in lasting))
