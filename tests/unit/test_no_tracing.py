"""Nothing that the agents see is sent to a tracing service, whatever the environment says."""

import os
import subprocess
import sys

PROGRAM = """
import tiphys.agents.graph
from langsmith.utils import tracing_is_enabled
print(tracing_is_enabled())
"""


def test_tracing_stays_off_when_the_environment_asks_for_it() -> None:
    switches = {"LANGSMITH_TRACING": "true", "LANGCHAIN_TRACING_V2": "true"}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **switches},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "False"
