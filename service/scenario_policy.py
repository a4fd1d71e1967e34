"""The policy that a scenario is played under, and what it lets the agents read."""

from typing import Any

import yaml

from tiphys.policies.config_values import ConfigValues
from tiphys.policies.parse import built_in_text
from tiphys.policies.policy import Policy
from tiphys.sandbox.installation import config_reader
from tiphys.sandbox.scenario import Scenario
from tiphys.sandbox.world import World


def policy_text(scenario: Scenario) -> str:
    """Give the demo's policy with what the scenario changes in it, as YAML."""
    policy: Any = yaml.safe_load(built_in_text("demo"))
    return yaml.safe_dump(_laid_over(policy, scenario.policy), sort_keys=False)


def let_read(world: World, policy: Policy) -> None:
    """Let the agents read the ConfigMaps whose values the policy knows, as the chart does."""
    values = policy.rule(ConfigValues)
    for namespace in world.opted_in:
        if names := values.configmaps(namespace):
            world.install(config_reader(namespace, names))


def _laid_over(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        keys = [*below, *(key for key in above if key not in below)]
        return {k: _laid_over(below.get(k), above[k]) if k in above else below[k] for k in keys}
    return above
