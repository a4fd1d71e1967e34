"""`tiphys serve`: one process of some roles; takes the data directory, listens, stops cleanly."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator

import structlog
import uvicorn

from tiphys.service.client import ADDRESS_FILE
from tiphys.service.database import DirectoryLock
from tiphys.service.errors import BadInputError
from tiphys.service.people_file import load
from tiphys.service.roles import Role
from tiphys.service.settings import Settings

log = structlog.get_logger()


def run(settings: Settings) -> None:
    """Serve until told to stop; raises `UsageError` for what the user can mend."""
    configure_logging(as_json=settings.log_json)
    if settings.lacking:
        raise BadInputError(settings.lacking)
    if settings.slack_lacking and Role.GATEWAY in settings.roles:
        raise BadInputError(settings.slack_lacking)
    if settings.model_lacking and Role.AGENTS in settings.roles:
        raise BadInputError(settings.model_lacking)
    if settings.identity_lacking:
        raise BadInputError(settings.identity_lacking)
    if settings.people is not None and Role.GATEWAY in settings.roles:
        load(settings.people)  # what is wrong with it is said before anything begins
    tokens = settings.webhook_token and (settings.api_token or settings.people)
    if Role.GATEWAY in settings.roles and not settings.on_loopback and not tokens:
        raise BadInputError(
            f"listening on {settings.host} needs TIPHYS_WEBHOOK_TOKEN and TIPHYS_API_TOKEN "
            "or TIPHYS_PEOPLE"
        )
    lock = DirectoryLock(settings.data_dir)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(settings))
    finally:
        lock.release()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Server(uvicorn.Server):
    """Leaves the signals to us: uvicorn would raise them again before we have cleaned up."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


async def _serve(settings: Settings) -> None:
    listener = _listen(settings)
    from tiphys.service.app import Service  # seconds of imports: what is refused is refused before

    service = Service(settings)
    server = _Server(
        uvicorn.Config(
            service.asgi,
            interface="asgi3",
            lifespan="off",
            proxy_headers=False,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=5,
            server_header=False,
        )
    )
    address = settings.data_dir / ADDRESS_FILE
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, lambda: setattr(server, "should_exit", True))
    try:
        await service.start()
        url = f"http://{_netloc(listener)}"
        address.write_text(json.dumps({"url": url, "pid": os.getpid()}))
        log.info("serving", url=url, roles=[*settings.roles], data_dir=str(settings.data_dir))
        await server.serve([listener])
    finally:
        address.unlink(missing_ok=True)
        await service.stop()
        listener.close()


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in str(settings.host) else socket.AF_INET
    # Named, because asyncio sets TCP_NODELAY only then, and a small answer waits 40 ms without it.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise BadInputError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}"
        ) from error
    listener.listen(1024)
    return listener


def _netloc(listener: socket.socket) -> str:
    name: tuple[str, int] = listener.getsockname()[:2]
    host, port = name
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - an address to call, not to listen on
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def configure_logging(*, as_json: bool) -> None:
    """Write structured logs to standard error, from level info up; libraries' warnings too."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
