"""Every test runs on uvloop and on asyncio, in an owned and in an adopted loop.

*Owned*: the test function runs in the main greenlet and the first wait makes the hub, as in a script.
*Adopted*: the test function runs in a greenlet below ``asyncio.Runner``, as under a server.

A module says with ``pytestmark = pytest.mark.engines("owned")`` (or ``"none"``) that only some of that makes
sense for it; so may a single test. Tests that are coroutines are run by pytest-asyncio, on both loops.

``--fewer-engines`` leaves out two of the four combinations, where there are four: half the time, for further
interpreters.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bridge
from bridge._core.current import hub_local, of_thread
from bridge.baseserver import BaseServer
from bridge.server import StreamServer

from .helpers import environment_of, run_code

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

FACTORIES: dict[str, Callable[[], Any]] = {"asyncio": asyncio.new_event_loop}
if uvloop is not None:
    FACTORIES["uvloop"] = uvloop.new_event_loop

MODES = ("owned", "adopted")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fewer-engines",
        action="store_true",
        help="only uvloop adopted and asyncio owned, where there are more",
    )


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # begun in the background by a shell; programs that the tests interrupt would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers", "engines(*modes): in which of owned, adopted (or none) the test is run"
    )


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    return FACTORIES


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if inspect.iscoroutinefunction(metafunc.function):
        return
    marker = metafunc.definition.get_closest_marker("engines")
    modes = marker.args if marker is not None else MODES
    kinds = [f"{loop}-{mode}" for loop in FACTORIES for mode in modes if mode != "none"]
    if metafunc.config.getoption("--fewer-engines") and len(kinds) == 4:
        kinds = [kind for kind in kinds if kind in ("uvloop-adopted", "asyncio-owned")]
    if kinds:
        metafunc.parametrize("engine", kinds, indirect=True)


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which loop, and who runs it: for instance ``uvloop-owned``; empty where that is not ours to say."""
    if not hasattr(request, "param"):
        yield ""
        return
    loop, mode = request.param.split("-")
    _end_hub()
    made: list[Any] = []

    def factory() -> Any:
        aio = FACTORIES[loop]()
        if threading.current_thread() is threading.main_thread():  # another thread closes its own
            made.append(aio)
        return aio

    bridge.config.aio_loop_factory = factory
    request.node.bridge_mode = (mode, FACTORIES[loop])
    yield request.param
    _end_hub()
    del bridge.config.aio_loop_factory
    for aio in made:  # of hubs and loops that the test has made by hand and left
        if not aio.is_running() and not aio.is_closed():
            aio.close()


def _end_hub() -> None:
    for hub in (hub_local.hub, *of_thread.aside):
        if hub is not None and hub.loop is not None:
            hub.destroy(destroy_loop=True)
    hub_local.hub = None
    of_thread.aside = ()
    of_thread.next_loop = None


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    mode, factory = getattr(pyfuncitem, "bridge_mode", ("owned", None))
    if mode != "adopted":
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    with asyncio.Runner(loop_factory=factory) as runner:
        outcome: list[BaseException] = []

        async def run() -> None:
            result = await bridge.Greenlet.spawn(lambda: _outcome(pyfuncitem.obj, arguments)).aget()
            if result is not None:
                outcome.append(result)

        runner.run(run())
    if outcome:
        raise outcome[0]
    return True


def _outcome(function: Callable[..., None], arguments: dict[str, Any]) -> BaseException | None:
    """The exception that the test raised: it is not the hub's to print."""
    try:
        function(**arguments)
    except BaseException as e:
        return e
    return None


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, BaseException]]:
    """What the hub would print: (context, exception)."""
    caught: list[tuple[Any, BaseException]] = []

    def print_exception(self: Any, context: Any, t: Any, v: BaseException, tb: Any) -> None:
        caught.append((context, v))

    monkeypatch.setattr(bridge.hub.Hub, "print_exception", print_exception)
    return caught


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the hub prints."""
    stream = io.StringIO()
    monkeypatch.setattr(bridge.hub.Hub, "exception_stream", stream)
    return stream


# -- other processes ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def environment() -> Callable[..., dict[str, str]]:
    """``environment(path=None, **variables)``: that of a process that can import bridge (and from *path*)."""
    return environment_of


@pytest.fixture(scope="session")
def run_fresh() -> Callable[..., str]:
    """``run_fresh(code, *arguments, path=None, **variables)``: what *code* prints in a new python.

    Patching is for a process. The code must end well and print nothing to stderr; warnings are errors.
    """
    return run_code


# -- servers --------------------------------------------------------------------------------------------


@pytest.fixture
def servers() -> Iterator[list[BaseServer]]:
    """Servers to be stopped at the end."""
    made: list[BaseServer] = []
    yield made
    for server in made:
        server.stop(timeout=0)


@pytest.fixture
def serve(servers: list[BaseServer]) -> Callable[..., Any]:
    """``serve(handle=None, listener=..., cls=StreamServer, **options)``: make and start a server.

    It is stopped at the end of the test.
    """

    def make(
        handle: Any = None, listener: Any = ("127.0.0.1", 0), cls: Any = StreamServer, **kwargs: Any
    ) -> Any:
        server = cls(listener, handle, **kwargs)
        servers.append(server)
        server.start()
        return server

    return make
