"""Starts, watches and ends the cluster's processes.

Invariants: every process carries the cluster's folder in its environment, so that `stop_all` finds
it without any file (a killed `up` leaves no file behind); nothing that lacks that mark, and does
not descend from one that bears it, is ever signalled.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.cluster.report import Trouble

MARK = "TIPHYS_TEST_CLUSTER"
PROC = Path("/proc")
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Home:
    """The folder that marks the processes started for it, and where they write."""

    mark: Path
    logs: Path


@dataclass(frozen=True)
class Daemon:
    """One started process and where it writes."""

    name: str
    pid: int
    log: Path

    def alive(self) -> bool:
        """Tell whether it still runs."""
        return is_alive(self.pid)

    def stop(self, how: signal.Signals = signal.SIGKILL, seconds: float = 20) -> None:
        """End it and its session; one that does not end in time is killed."""
        deadline = time.monotonic() + seconds
        while is_alive(self.pid):
            with contextlib.suppress(ProcessLookupError):
                if how is signal.SIGKILL or time.monotonic() > deadline:
                    os.killpg(self.pid, signal.SIGKILL)
                else:
                    os.kill(self.pid, how)
            _reap(self.pid)
            time.sleep(POLL_SECONDS)


def _reap(pid: int) -> None:
    """Collect a child of our own, or it would stay a zombie for as long as we live."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        state = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in {"Z", "X"}


def start(
    home: Home,
    name: str,
    argv: Sequence[str | Path],
    env: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Daemon:
    """Start `argv` in a session of its own, its output in the component's log."""
    home.logs.mkdir(parents=True, exist_ok=True)
    log = home.logs / f"{name}.log"
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home.mark),
        "LANG": "C.UTF-8",
        MARK: str(home.mark),
        **(env or {}),
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(a) for a in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd="/",
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
    return Daemon(name, process.pid, log)


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, indented."""
    try:
        last = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        last = ["(no log)"]
    return "\n".join(f"    {line}" for line in last)


def wait_for(what: str, probe: Callable[[], bool], daemon: Daemon, seconds: float = 60) -> None:
    """Wait until `probe` answers True; a dead daemon or the deadline is Trouble with its log."""
    deadline = time.monotonic() + seconds
    while not probe():
        if not daemon.alive():
            raise Trouble(f"{daemon.name} ended while waiting for {what}:\n{tail(daemon.log)}")
        if time.monotonic() > deadline:
            raise Trouble(
                f"{what} did not come true within {seconds:.0f} s; {daemon.log} ends with:\n"
                f"{tail(daemon.log)}"
            )
        time.sleep(POLL_SECONDS)


def run(argv: Sequence[str | Path], *, seconds: float = 120, stdin: str | None = None) -> str:
    """Run a command to its end and return what it printed; a failure is Trouble with its words."""
    try:
        done = subprocess.run(
            [str(a) for a in argv],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as slow:
        raise Trouble(f"{argv[0]} did not end within {seconds:.0f} s") from slow
    if done.returncode:
        words = (done.stderr or done.stdout).strip()[-2000:]
        raise Trouble(f"{' '.join(str(a) for a in argv[:4])} … failed: {words}")
    return done.stdout


def marked(run_folder: Path) -> set[int]:
    """Return the processes that bear the cluster's mark, and all that descend from them."""
    wanted = f"{MARK}={run_folder}".encode()
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if fields[0] in {"Z", "X"}:
            continue
        parents[int(entry.name)] = int(fields[1])
        if wanted in environment:
            found.add(int(entry.name))
    found.discard(os.getpid())
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found} - found
        found |= children
        grown = bool(children)
    return found


def _ask_databases(run_folder: Path, seconds: float = 5) -> set[int]:
    """Ask PostgreSQL to end: killed, it leaves its shared memory behind. Return who was asked."""
    asked: set[int] = set()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        databases = {pid for pid in marked(run_folder) if _name(pid) == "postgres"}
        if not databases:
            break
        for pid in databases - asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        asked |= databases
        time.sleep(POLL_SECONDS)
    return asked


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def stop_all(run_folder: Path, seconds: float = 20) -> int:
    """SIGKILL whatever bears the mark until nothing does; return how many there were.

    A graceful API server would keep its port for a minute, so none is asked first.
    """
    seen = _ask_databases(run_folder)
    deadline = time.monotonic() + seconds
    while left := marked(run_folder):
        seen |= left
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise Trouble(f"processes {sorted(left)} do not end")
        time.sleep(POLL_SECONDS)
    return len(seen)
