"""What containers print: the present log and the one before the last restart."""

from collections import defaultdict


class Logs:
    """Logs by pod uid and container."""

    def __init__(self) -> None:
        self._present: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._previous: dict[tuple[str, str], list[str]] = {}

    def append(self, pod_uid: str, container: str, line: str) -> None:
        """Add one line, without its newline, to the running container's log."""
        self._present[pod_uid, container].append(line)

    def restarted(self, pod_uid: str, container: str) -> None:
        """Turn the present log into the previous one."""
        self._previous[pod_uid, container] = self._present.pop((pod_uid, container), [])

    def read(
        self, pod_uid: str, container: str, previous: bool = False, tail: int | None = None
    ) -> str | None:
        """Give the text, its last `tail` lines if asked; None when there is no previous log."""
        key = pod_uid, container
        lines = self._previous.get(key) if previous else self._present.get(key, [])
        if lines is None:
            return None
        kept = lines if tail is None else lines[max(0, len(lines) - tail) :]
        return "".join(f"{line}\n" for line in kept)

    def forget(self, pod_uid: str) -> None:
        """Drop the logs of a pod that is gone."""
        for logs in (self._present, self._previous):
            for key in [key for key in logs if key[0] == pod_uid]:
                del logs[key]
