"""Exchanges with a model are written down, redacted, and played again offline."""

import json
import stat
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from model_bench import InProcess, act, asking
from test_shared_causes import incident

from tiphys.agents.exchanges import ExchangesInvalidError, Recording, Replay
from tiphys.agents.model_endpoint import Wire
from tiphys.agents.model_failures import NotRecordedError
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Choice, ReasonerFailedError
from tiphys.service.asking_models import open_evaluated
from tiphys.service.errors import BadInputError, UsageError
from tiphys.service.model_settings import ModelSettings

SECRET = "hunter2-" + "S3cr3t"


async def record(path: Path, said: object = None) -> Choice:
    wire = InProcess(lambda _: said or act("rollout-undo", "workload", reason="it began then"))
    async with asking(Recording(Wire(wire), path)) as model:
        return await model.decide(incident(1))


async def test_what_was_recorded_is_played_again_without_an_endpoint(tmp_path: Path) -> None:
    path = tmp_path / "exchanges.jsonl"
    then = await record(path)
    async with asking(Replay(path)) as model:
        again = await model.decide(incident(1))
    assert again == then
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (line,) = path.read_text().splitlines()
    assert set(json.loads(line)) == {"prompt", "model", "status", "answer"}
    assert incident(1).targets["workload"].name not in line, "what was asked is not kept"


async def test_a_prompt_that_the_file_does_not_have_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "exchanges.jsonl"
    await record(path)
    settings = ModelSettings.model_construct(**_defaults())
    async with open_evaluated(settings, Playbooks.load(), path) as reasoner:
        with pytest.raises(NotRecordedError, match="no answer to the prompt"):
            await reasoner.decide(incident(2))
        choice = await reasoner.decide(incident(1))
    assert choice.decided_by.model == "stub-model", "as the file says"


def _defaults() -> dict[str, object]:
    return {name: field.default for name, field in ModelSettings.model_fields.items()}


async def test_malformed_answers_are_played_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "exchanges.jsonl"
    with pytest.raises(ReasonerFailedError, match="nonsensical"):
        await record(path, "no answer")
    assert len(path.read_text().splitlines()) == 2, "the mended one too"
    async with asking(Replay(path)) as model:
        with pytest.raises(ReasonerFailedError, match="nonsensical"):
            await model.decide(incident(1))


async def test_a_secret_in_an_answer_is_not_written_down(tmp_path: Path) -> None:
    path = tmp_path / "exchanges.jsonl"
    said = act("rollout-undo", "workload", reason=f"password={SECRET} was refused")
    then = await record(path, said)
    assert SECRET not in path.read_text()
    async with asking(Replay(path)) as model:
        assert await model.decide(incident(1)) == then, "it is the same without it"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no exchange"),
        ("{", r":1: is no JSON"),
        ("[]", r":1: needs prompt"),
        ('{"prompt": "x", "status": "200", "answer": {}}', r":1: needs prompt"),
        ('{"prompt": "x", "status": 7, "answer": {}}', r":1: 7 is no HTTP status"),
    ],
    ids=["empty", "broken", "list", "text-status", "odd-status"],
)
def test_a_file_that_cannot_be_played_is_named_with_its_line(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "exchanges.jsonl"
    path.write_text(text)
    with pytest.raises(ExchangesInvalidError, match=says):
        Replay(path)
    with pytest.raises(ExchangesInvalidError, match="No such file"):
        Replay(tmp_path / "none.jsonl")


async def test_evaluating_needs_a_file_or_an_endpoint(tmp_path: Path) -> None:
    settings = ModelSettings.model_construct(**_defaults())
    with pytest.raises(UsageError, match="or --replay FILE"):
        async with open_evaluated(settings, Playbooks.load()):
            pass
    with pytest.raises(BadInputError, match="cannot be read"):
        async with open_evaluated(settings, Playbooks.load(), tmp_path / "none.jsonl"):
            pass
