"""Which values a key of a ConfigMap may be set to: those that the policy lists, and no other."""

from typing import Annotated, ClassVar

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from tiphys.policies.rule import ALLOWED, SETTINGS, Request, Rule, RuleName
from tiphys.policies.verdict import Denied, Verdict

_CONFIG_MAP = ("v1", "ConfigMap")
_DATA = "/data/"
_Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
_Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
_Value = Annotated[str, Field(pattern=r"^[^\r\n]{1,256}$")]


@dataclass(frozen=True, config=SETTINGS)
class AllowedValues:
    """The values of one key of one ConfigMap; no name may stand for several."""

    namespace: _Name
    configmap: _Name
    key: _Key
    values: tuple[_Value, ...]
    """Text, as it stands in the ConfigMap: `"20"`, not 20."""

    @field_validator("values")
    @classmethod
    def _some(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if not values:
            raise ValueError("expected at least one value")
        return values

    @property
    def place(self) -> tuple[str, str, str]:
        """Namespace, ConfigMap and key."""
        return self.namespace, self.configmap, self.key


@dataclass(frozen=True, config=SETTINGS)
class ConfigValues(Rule):
    """A key of a ConfigMap is set to a listed value or not at all; out of the box none is."""

    name: ClassVar[RuleName] = RuleName.CONFIG_VALUES

    allowed: tuple[AllowedValues, ...] = ()
    """Each key once."""

    def configmaps(self, namespace: str) -> list[str]:
        """Name those of a namespace that have a listed key: the agents may read these."""
        return sorted({one.configmap for one in self.allowed if one.namespace == namespace})

    @field_validator("allowed")
    @classmethod
    def _each_key_once(cls, allowed: tuple[AllowedValues, ...]) -> tuple[AllowedValues, ...]:
        seen: set[tuple[str, str, str]] = set()
        for one in allowed:
            if one.place in seen:
                raise ValueError(f"key {one.key} of {one.configmap} stands there twice")
            seen.add(one.place)
        return allowed

    def judge(self, request: Request) -> Verdict:
        """Deny a change of a ConfigMap that is not one listed key going to a listed value."""
        for change in request.proposal.changes:
            of = change.of or request.proposal.target
            if (of.api_version, of.kind) != _CONFIG_MAP:
                continue
            key = change.path.removeprefix(_DATA)
            if key == change.path:
                return Denied(reason=f"of {of} only a key of its data may change")
            values = self._values(of.namespace, of.name, key)
            if not values:
                return Denied(reason=f"the policy lists no values for key {key} of {of}")
            if not isinstance(change.present, str) or change.intended not in values:
                said = ", ".join(values)
                return Denied(reason=f"key {key} of {of} may be set to {said}, and nothing else")
        return ALLOWED

    def _values(self, *place: str) -> tuple[str, ...]:
        return next((one.values for one in self.allowed if one.place == place), ())
