"""pytest plugin: ``@pytest.mark.greenlet`` runs a test in a greenlet on the loop that pytest-asyncio manages.

Blocking test code and asynchronous fixtures mix: the fixtures run on the same loop, and the test waits for
them, or for anything else, by blocking calls or ``bridge.await_``::

    @pytest_asyncio.fixture
    async def server(): ...

    @pytest.mark.greenlet                          # also (loop_scope="session"), as for asyncio
    def test_legacy_client(server):
        assert LegacyClient(server.url).get("/") == "hello"

A coroutine function with the mark may block anywhere (it is run as a portal). Needs pytest-asyncio, whose
loop scopes and loop factories count for these tests as for coroutines.

How: a marked function is given to pytest-asyncio as a coroutine function, which runs the test in a greenlet
and waits for it. That has to happen twice, as pytest looks at a function before it parametrizes it, and
then makes an item of it; both times before pytest-asyncio looks.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Generator
from typing import Any

import pytest

from bridge import portal, sync_to_async

__all__: list[str] = []

_MARKER = (
    "greenlet(**asyncio): run the test in a greenlet on the loop of pytest-asyncio, so that it may block"
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, None, None]:
    """Before pytest-asyncio chooses loops for the function."""
    _convert(metafunc.definition)
    return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> Generator[None, Any, Any]:
    """After pytest has made items, before pytest-asyncio looks whether they are coroutines."""
    made = yield
    for item in made if isinstance(made, list) else [made]:
        if isinstance(item, pytest.Function):
            _convert(item)
    return made


def _convert(item: pytest.Function) -> None:
    mark = item.get_closest_marker("greenlet")
    if mark is None or not type(item).__module__.startswith("_pytest.python"):
        return  # tests of unittest are run by unittest
    if not item.config.pluginmanager.hasplugin("asyncio"):
        raise pytest.UsageError(
            f"{item.nodeid} is marked 'greenlet', which needs pytest-asyncio: install it, or remove "
            "'-p no:asyncio'"
        )
    if item.get_closest_marker("asyncio") is None:
        item.add_marker(pytest.mark.asyncio(*mark.args, **mark.kwargs))
    function: Any = item.obj
    if isinstance(function, types.MethodType):
        item.obj = types.MethodType(_in_greenlet(function.__func__), function.__self__)
    else:
        item.obj = _in_greenlet(function)


def _in_greenlet(function: Callable[..., Any]) -> Callable[..., Any]:
    if getattr(function, "_bridge_greenlet", False):
        return function
    if inspect.iscoroutinefunction(function):
        wrapped: Any = portal(function)
    else:
        # the name, the signature and the marks of the test are those of the function
        wrapped = functools.wraps(function)(sync_to_async(function))
    wrapped._bridge_greenlet = True
    return wrapped  # type: ignore[no-any-return]
