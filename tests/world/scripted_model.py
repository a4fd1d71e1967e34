"""A model that decides by a few rules on what it is shown, at a real endpoint on loopback.

It stands for any model in tests: it asks for reads before it acts, knows three remedies, and hands
over whatever else it sees. What it is told comes from the prompt alone.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_FENCED = re.compile(r"^(FINDINGS-[0-9a-f]{24})\n(.*)\n\1$", re.MULTILINE)


def said(messages: list[dict[str, str]]) -> dict[str, Any]:
    """Give the answer to a conversation."""
    found = _FENCED.search(messages[1]["content"])
    assert found, "the findings are fenced"
    data = json.loads(found[2])
    wanted = _remedy(data["facts"], data["targets"])
    cited = [data["evidence"][0]["id"]]
    common = {"confidence": 0.8, "evidence": cited}
    if wanted is None:
        return {"answer": "escalate", "reason": "no rule of mine covers this", **common}
    action, target, reason = wanted
    offered = "What can be read:\n- " in messages[1]["content"]
    if len(messages) == 2 and offered:
        return {"answer": "ask", "why": reason, "reads": [{"read": "describe", "of": target}]}
    return {
        "answer": "act",
        "action": action,
        "target": target,
        "parameters": {},
        "reason": reason,
        **common,
    }


def _remedy(facts: dict[str, Any], targets: dict[str, str]) -> tuple[str, str, str] | None:
    rollout, pods, pod, job = (facts.get(g, {}) for g in ("rollout", "pods", "pod", "job"))
    jobs = [role for role, name in targets.items() if name.startswith("Job ")]
    if jobs and job.get("failed") and job.get("later_success"):
        return "delete-failed-job", jobs[0], "a later run of the same CronJob succeeded"
    newest = pods.get("newest_failing", 0)
    if rollout.get("recent") and rollout.get("previous_healthy") and newest:
        return "rollout-undo", "workload", "only pods of the newest revision fail"
    lonely = pods.get("failing") == 1 and pods.get("ready", 0) >= 1
    if lonely and pod.get("trouble") == "unready" and pod.get("running"):
        return "restart-pod", "pod", "one of several pods is wedged, its like serve"
    return None


@dataclass
class Scripted:
    """The endpoint, and what it was asked."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


@contextmanager
def scripted_model() -> Iterator[Scripted]:
    """Serve the scripted model."""
    scripted = Scripted()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            scripted.requests.append(asked)
            content = json.dumps({"decision": said(asked["messages"])})
            message = {"role": "assistant", "content": content}
            whole = {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": asked["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050},
            }
            body = json.dumps(whole).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scripted.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield scripted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
