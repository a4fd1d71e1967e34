"""Takes the cluster down, whole or half, and leaves nothing: no process, mount, link or rule."""

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from tools.cluster import network
from tools.cluster.paths import Cache
from tools.cluster.processes import POLL_SECONDS, stop_all
from tools.cluster.report import Trouble

_DETACH = 2
_CGROUPS = Path("/sys/fs/cgroup")
# No flag of the kubelet, the controller manager or containerd 1.6 moves these.
_STRAYS = tuple(
    map(Path, ("/var/lib/kubelet", "/var/log/containers", "/run/containerd", "/var/lib/cni"))
)


def mounts_under(folder: Path) -> list[str]:
    """Return the mount points below a folder, innermost first."""
    found: list[str] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point.startswith(f"{folder}/"):
            found.append(point)
    return found[::-1]


def unmount(folder: Path) -> int:
    """Detach every mount below the folder; a busy one goes when its last user does."""
    libc = ctypes.CDLL(None, use_errno=True)
    count = 0
    for _ in range(10):
        points = mounts_under(folder)
        if not points:
            return count
        for point in points:
            count += libc.umount2(os.fsencode(point), _DETACH) == 0
    raise Trouble(f"still mounted below {folder}: {', '.join(mounts_under(folder)[:5])}")


def _container_ids(run: Path) -> list[str]:
    tasks = run / "containerd/state/io.containerd.runtime.v2.task/k8s.io"
    return sorted(path.name for path in tasks.glob("*")) if tasks.is_dir() else []


def _shim_sockets(run: Path) -> list[Path]:
    """The shims' sockets lie outside their state, under /run/containerd."""
    tasks = run / "containerd/state/io.containerd.runtime.v2.task/k8s.io"
    addresses = [path.read_text().strip() for path in tasks.glob("*/address")]
    return [Path(address.removeprefix("unix://")) for address in addresses]


def _remove_cgroups(ids: list[str], seconds: float = 20) -> None:
    """Remove the containers' control groups; one is busy until its dead are reaped."""
    deadline = time.monotonic() + seconds
    for name in ids:
        for group in (*_CGROUPS.glob(f"k8s.io/{name}"), *_CGROUPS.glob(f"*/k8s.io/{name}")):
            inner = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
            for folder in (*inner, group):
                _remove_folder(folder, deadline)
    for parent in (*_CGROUPS.glob("k8s.io"), *_CGROUPS.glob("*/k8s.io")):
        # Another containerd may have its containers beside ours.
        with contextlib.suppress(OSError):
            parent.rmdir()


def _remove_folder(folder: Path, deadline: float) -> None:
    while folder.exists():
        try:
            folder.rmdir()
        except OSError as busy:
            if time.monotonic() > deadline:
                raise Trouble(f"{folder} does not go: {busy}") from busy
            time.sleep(POLL_SECONDS)


def postgres_prefix(run: Path) -> str:
    """How a database's folder beside this cluster begins: another cluster's may be in use."""
    return f"tiphys-test-postgres-{hashlib.sha256(str(run).encode()).hexdigest()[:8]}-"


def note_absent(run: Path) -> None:
    """Write down which of the folders that others' programs insist on are not there yet."""
    absent = [str(path) for path in _STRAYS if not path.exists()]
    (run / "absent.json").write_text(json.dumps(absent))


def _remove_strays(run: Path, ids: list[str]) -> None:
    """Remove what containerd, the kubelet and CNI keep outside the folder they are given."""
    for name in ids:
        Path(f"/var/lib/cni/results/cni-loopback-{name}-lo").unlink(missing_ok=True)
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(str(run)):
            link.unlink()
    for data in Path(tempfile.gettempdir()).glob(f"{postgres_prefix(run)}*"):
        shutil.rmtree(data, ignore_errors=True)
    noted = run / "absent.json"
    if noted.exists():
        for path in json.loads(noted.read_text()):
            shutil.rmtree(path, ignore_errors=True)


def take_down(cache: Cache) -> bool:
    """Stop and remove everything; False when there was nothing to stop."""
    run = cache.run
    ids, sockets = _container_ids(run), _shim_sockets(run)
    stopped = stop_all(run)
    unmounted = unmount(run)
    _remove_cgroups(ids)
    for path in sockets:
        path.unlink(missing_ok=True)
    _remove_strays(run, ids)
    network.take_down(cache)
    existed = run.exists()
    if existed:
        last = cache.root / "last-logs"
        if cache.logs.is_dir():
            shutil.rmtree(last, ignore_errors=True)
            cache.logs.rename(last)
        shutil.rmtree(run)
    return bool(stopped or unmounted or existed)
