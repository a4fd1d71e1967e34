"""Who decides the cases that `tiphys eval` runs, by the name that `--reasoner` takes."""

import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from tiphys.agents.model_reasoner import Sources
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Reasoner
from tiphys.service.asking_models import open_evaluated
from tiphys.service.errors import UsageError
from tiphys.service.settings import Settings

Opener = Callable[[Sources | None], AbstractAsyncContextManager[Reasoner]]
"""Opens who decides; what it may read beside the findings is None where all was retold."""
NAMES: Final = ("playbooks", "model")


def decider(name: str, replay: Path | None = None) -> Opener:
    """Give who decides; raises `UsageError`.

    `replay`: recorded exchanges, played in the model's place; nothing is sent anywhere then.
    """
    if name not in NAMES:
        raise UsageError(f"--reasoner {name}: one of {', '.join(NAMES)} was expected")
    if replay is not None and name != "model":
        raise UsageError("--replay is for --reasoner model: playbooks ask nobody")
    books = Playbooks.load()

    @contextlib.asynccontextmanager
    async def playbooks(sources: Sources | None) -> AsyncGenerator[Reasoner]:
        del sources
        yield books

    def model(sources: Sources | None) -> AbstractAsyncContextManager[Reasoner]:
        return open_evaluated(Settings(), books, replay=replay, sources=sources)

    return playbooks if name == "playbooks" else model
