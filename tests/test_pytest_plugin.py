"""The pytest plugin, in pytest processes of its own."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

pytest.importorskip("pytest_asyncio")
pytest_plugins = ["pytester"]
pytestmark = pytest.mark.engines("none")

#: How pytest finds the plugin: by itself, where the distribution is installed with its entry point.
INSTALLED = any(point.value == "bridge.pytest_plugin" for point in entry_points(group="pytest11"))
PLUGIN = "" if INSTALLED else "-p bridge.pytest_plugin"

START = """
import asyncio, threading
import pytest, pytest_asyncio
import bridge

loops = []

def blocks():
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()  # plain code
    bridge.sleep(0.001)
    loops.append(bridge.get_hub().aio_loop)
    return loops[-1]
"""


def run(pytester: pytest.Pytester, program: str, *options: str, mode: str = "strict") -> pytest.RunResult:
    pytester.makepyfile(START + program)
    pytester.makeini(
        f"[pytest]\nasyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\n"
        "filterwarnings =\n    error\n"
        # of an editable installation that registers the plugin
        "    ignore:Module already imported so cannot be rewritten; _editable_impl:"
        "pytest.PytestAssertRewriteWarning\n"
        f"addopts = --strict-markers {PLUGIN}"
    )
    return pytester.runpytest_subprocess(*options)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_a_marked_test_blocks_on_the_loop_of_its_async_fixtures(pytester: pytest.Pytester, mode: str) -> None:
    result = run(
        pytester,
        """
@pytest_asyncio.fixture
async def fixture():
    queue = bridge.queue.Queue()
    async def produce():
        for n in range(3):
            await asyncio.sleep(0)
            queue.put_nowait(n)
        return asyncio.get_running_loop()
    task = asyncio.create_task(produce())
    yield queue, task
    assert task.done()

@pytest.mark.greenlet
def test_function(fixture):
    queue, task = fixture
    assert [queue.get() for _ in range(3)] == [0, 1, 2]
    assert bridge.await_(task) is blocks()

class TestClass:
    attribute = 5

    @pytest.mark.greenlet
    def test_method(self, fixture):
        assert self.attribute == 5
        assert [fixture[0].get() for _ in range(3)] == [0, 1, 2]

@pytest.mark.greenlet
@pytest.mark.parametrize("n", [1, 2])
def test_parametrized(n, tmp_path):
    assert n in (1, 2) and tmp_path.exists()
    blocks()

@pytest.mark.greenlet
async def test_coroutine_may_block(fixture):
    assert fixture[0].get() == 0
    assert await fixture[1] is asyncio.get_running_loop()

@pytest.mark.asyncio
async def test_an_ordinary_one_may_not(fixture):
    with pytest.raises(bridge.exceptions.BlockingSwitchOutError):
        bridge.sleep(0)
    await fixture[1]

def test_one_without_a_loop():
    assert asyncio._get_running_loop() is None
""",
        mode=mode,
    )
    result.assert_outcomes(passed=7)


def test_loop_scopes_are_those_of_pytest_asyncio(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def session_loop():
    return asyncio.get_running_loop()

@pytest.mark.greenlet(loop_scope="session")
def test_one(session_loop):
    assert blocks() is session_loop

@pytest.mark.greenlet(loop_scope="session")
def test_two(session_loop):
    assert blocks() is session_loop

@pytest.mark.greenlet
def test_own(session_loop):
    assert blocks() is not session_loop

@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.greenlet
def test_marked_twice(session_loop):
    assert blocks() is session_loop

@pytest.mark.greenlet(loop_scope="class")
class TestClass:
    def test_one(self):
        blocks()
    def test_two(self):
        assert blocks() is loops[-2]
""",
    )
    result.assert_outcomes(passed=6)


def test_a_mark_of_the_module_and_loop_factories(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
import asyncio
class OwnLoop(asyncio.SelectorEventLoop):
    pass
def pytest_asyncio_loop_factories(config, item):
    return {"own": OwnLoop, "plain": asyncio.SelectorEventLoop}
"""
    )
    result = run(
        pytester,
        """
pytestmark = pytest.mark.greenlet

def test_one(request):
    name = type(blocks()).__name__
    assert ("own" in request.node.name) == (name == "OwnLoop")
""",
        "-v",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_one?own? PASSED*", "*test_one?plain? PASSED*"])


def test_failures_show_the_line_of_the_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.greenlet
def test_fails():
    blocks()
    assert 1 == 2

@pytest.mark.greenlet
def test_skips():
    blocks()
    pytest.skip("because")

@pytest.mark.xfail(strict=True)
@pytest.mark.greenlet
def test_xfails():
    blocks()
    raise LookupError
""",
    )
    result.assert_outcomes(failed=1, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines([">*assert 1 == 2", "*test_failures_show*.py:*: AssertionError"])
    result.stderr.no_fnmatch_line("*failed with*")


def test_without_pytest_asyncio_it_says_what_is_missing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.greenlet\ndef test_one(): pass\n")
    result = pytester.runpytest_subprocess("-p", "no:asyncio", *PLUGIN.split())
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*needs pytest-asyncio*"])


def test_unmarked_tests_and_unittest_are_left_alone(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
import unittest
pytestmark = pytest.mark.greenlet
class Case(unittest.TestCase):
    def test_case(self):
        assert asyncio._get_running_loop() is None
""",
    )
    result.assert_outcomes(passed=1)
