"""The same fuzzer in the model's place, now at a real endpoint on loopback."""

import json
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from model_bench import completion
from test_agents_graph import CASE, NOW, PLAYBOOKS, Cluster, Metrics
from test_model_taken_over import BUDGET, KINDS, only_what_may_be_read, seen

from tiphys.agents.budget import Meter
from tiphys.agents.deciding import Decider
from tiphys.agents.model_endpoint import Endpoint
from tiphys.agents.model_reasoner import ModelReasoner, Sources
from tiphys.agents.two_opinions import TwoOpinions
from tiphys.workflow_templates.catalogue import every

CASES = 30
"""Of each kind."""


@contextmanager
def fuzzing(kind: str, asked: list[Any]) -> Iterator[str]:
    """Serve the fuzzer's answers; give the base URL."""
    rng = random.Random(f"7:http:{kind}")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            said = KINDS[kind](rng, asked[-1])
            if isinstance(said, Exception):
                self.close_connection = True
                return
            status, headers, body = 200, {"Content-Type": "application/json"}, b""
            if isinstance(said, httpx2.Response):
                status, headers, body = said.status_code, dict(said.headers), said.content
            else:
                content = said if isinstance(said, str) else json.dumps({"decision": said})
                body = json.dumps(completion(content)).encode()
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() != "content-length":
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) + rng.choice([0, 0, 0, -1])))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.filterwarnings("ignore:Pydantic serializer")
@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_nor_over_the_network(kind: str) -> None:
    state = await seen(CASE)
    asked: list[Any] = []
    with fuzzing(kind, asked) as url:
        for number in range(CASES):
            cluster, metrics, before = Cluster(), Metrics(), len(asked)
            at = Endpoint(url, "fuzzer", timeout=2, retries=1, pause=0.001)
            meter = Meter(BUDGET, lambda: NOW)
            model = ModelReasoner.connect(at, every(), meter, Sources(cluster, metrics))
            both = TwoOpinions(PLAYBOOKS, model)
            after = await Decider(cluster, both, lambda: NOW, 30).look(state)
            await model.close()
            decision = after.get("decision") or {}
            place = f"{kind} {number}"
            assert len(asked) - before <= BUDGET.calls_per_incident, place
            only_what_may_be_read(cluster, metrics, place)
            if decision["answer"] == "proposal":
                assert decision["action"] == "restart-pod", place
                assert decision["target"]["name"] == "cart-abc12-bbbbb", place  # type: ignore[index, call-overload]
