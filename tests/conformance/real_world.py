"""The cluster that `make cluster-up` started, or the one that TIPHYS_TEST_KUBECONFIG names.

The kit's own real world, whose processes run on this machine where the cluster was started here:
then what is killed is killed by its process.
"""

import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from tiphys.service.conform.live import LiveWorld
from tiphys.service.conform.wire import Json
from tools.cluster import argo
from tools.cluster.target import Target, find


class RealWorld(LiveWorld):
    """A real cluster for tests."""

    def __init__(self, folder: Path) -> None:
        self._target: Target = find()
        super().__init__(
            folder, self._target.kubeconfig, self._target.images["step"], self._target.node_ip
        )
        self.plain_image = self._target.images["test-base"]

    def controller(self) -> Sequence[Json]:
        """Give the test cluster's own, moved to other namespaces; see `controller.like`."""
        if not self._target.own:
            return super().controller()
        text = json.dumps(argo.manifests())
        text = text.replace(argo.NAMESPACE, self.argo).replace(argo.ACTIONS, self.actions)
        made: list[Json] = json.loads(text)
        [deployment] = [one for one in made if one["kind"] == "Deployment"]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        container["env"].append({"name": "RECENTLY_STARTED_POD_DURATION", "value": "1h"})
        return made

    def kill_container(self, pod: Json, container: str) -> None:
        """SIGKILL to each of its processes, the first too."""
        if not self._target.own:
            super().kill_container(pod, container)
            return
        step = b"verify" if container == "main" else container.encode()
        if "rollback" in pod["metadata"]["name"]:
            step = b"rollback"
        workflow = pod["metadata"]["labels"]["workflows.argoproj.io/workflow"]
        for pid in _pids(f"TIPHYS_WORKFLOW={workflow}".encode(), "environ"):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").endswith(b"\0" + step):
                    os.kill(pid, signal.SIGKILL)

    def end_controllers(self) -> None:
        """SIGKILL; had it its pod still, its kubelet would start it again beside the new one."""
        if not self._target.own:
            return
        for pid in _pids(f"--managed-namespace\0{self.actions}\0".encode(), "cmdline"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _pids(marked: bytes, file: str) -> list[int]:
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if marked in (folder / file).read_bytes():
                found.append(int(folder.name))
    return found
