"""What `python -m tools.cluster status` shows: each process, the node, the images."""

from tools.cluster import node
from tools.cluster.certs import Certificates
from tools.cluster.control_plane import Api
from tools.cluster.paths import Cache
from tools.cluster.processes import is_alive, marked
from tools.cluster.up import read_state


def show(cache: Cache) -> int:
    """Print the state; 0 when everything runs, 1 when something does not, 3 when nothing does."""
    state = read_state(cache)
    if state is None:
        left = marked(cache.run)
        print("down" if not left else f"half started, {len(left)} processes: run `down`")
        return 3
    dead = [name for name, pid in state["pids"].items() if not is_alive(pid)]
    for name, pid in state["pids"].items():
        print(f"{name:25} {pid:8} {'ended' if name in dead else 'running'}")
    api = Api(Certificates(cache.run / "pki"))
    ready = api.ready() and node.is_ready(api)
    print(f"{'node':25} {'':8} {'Ready' if ready else 'not ready'}")
    for reference, archive in sorted(state.get("archives", {}).items()):
        print(f"{'image':25} {'':8} {reference} from {archive}")
    print(f"{'kubeconfig':25} {'':8} {state['kubeconfig']}")
    return 0 if ready and not dead else 1
