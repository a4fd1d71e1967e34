"""Slack's library costs a second of imports: nothing loads it where Slack is not configured."""

import subprocess
import sys

LOADED = """
import sys
import tiphys.service.app, tiphys.service.role_gateway, tiphys.service.main
import tiphys.service.role_agents, tiphys.service.role_launcher
import tiphys.workflow_templates.run_step
found = [name for name in sys.modules if name.startswith(("slack_", "tiphys.service.slack"))]
sys.exit(", ".join(found) or 0)
"""


def test_no_role_and_no_step_loads_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
