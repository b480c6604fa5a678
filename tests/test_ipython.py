"""The IPython extension, in a real kernel and in a terminal shell."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import bridge

pytestmark = pytest.mark.engines("none")

pytest.importorskip("IPython")

#: The module that IPython is told to load.
EXTENSION = "bridge" if hasattr(bridge, "load_ipython_extension") else "bridge._ipython"


class Kernel:
    """A kernel process and a client of it."""

    def __init__(self) -> None:
        from jupyter_client.manager import KernelManager

        self.manager: Any = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env={**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"})
        self.client: Any = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def begin(self, cell: str) -> str:
        """Send a cell; returns the id of the request."""
        ident: str = self.client.execute(textwrap.dedent(cell))
        return ident

    def end(self, ident: str) -> tuple[str, str]:
        """Wait for the end of a cell; returns what it has printed and the name of its error."""
        while True:
            reply = self.client.get_shell_msg(timeout=60)
            if reply["parent_header"]["msg_id"] == ident:
                break
        printed = ""
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != ident:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                printed += content["text"]
            elif message["msg_type"] == "execute_result":
                printed += content["data"]["text/plain"]
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return printed, reply["content"].get("ename", "")

    def run(self, cell: str) -> str:
        """Run a cell that has no error; returns what it has printed."""
        printed, error = self.end(self.begin(cell))
        assert error == "", printed
        return printed

    def error(self, cell: str) -> str:
        """Run a cell; returns the name of its error."""
        return self.end(self.begin(cell))[1]

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    pytest.importorskip("ipykernel")
    pytest.importorskip("jupyter_client")
    kernel = Kernel()
    yield kernel
    kernel.stop()


@pytest.fixture
def loaded(kernel: Kernel) -> Iterator[Kernel]:
    kernel.run(f"import asyncio, bridge, threading\n%load_ext {EXTENSION}")
    yield kernel
    kernel.run(f"%unload_ext {EXTENSION}")


@pytest.mark.filterwarnings("ignore")
class TestKernel:
    def test_without_the_extension_a_blocking_cell_names_the_ways_out(self, kernel: Kernel) -> None:
        assert kernel.error("import bridge; bridge.sleep(0)") == "BlockingSwitchOutError"

    def test_cells_block_and_others_go_on_between_cells_too(self, loaded: Kernel) -> None:
        printed = loaded.run(
            """
            ticks = []
            def tick():
                while True:
                    ticks.append(1)
                    bridge.sleep(0.001)
            ticker = bridge.spawn(tick)
            task = asyncio.create_task(asyncio.sleep(0.001, "task"))
            while len(ticks) < 3 or not task.done():
                bridge.sleep(0.001)
            print("done")
            """
        )
        assert printed == "done\n"
        # a greenlet of one cell runs until the next one comes
        loaded.run("done = bridge.event.Event(); waiter = bridge.spawn_later(0.001, done.set)")
        assert loaded.run("await asyncio.wait_for(done, 60); waiter.dead") == "True"
        loaded.run("queue = bridge.queue.Queue(); bridge.spawn_later(0.01, queue.put, 1)")
        assert loaded.run("queue.get()") == "1"
        loaded.run("ticker.kill()")

    def test_native_awaits_and_blocking_calls_mix_in_a_cell(self, loaded: Kernel) -> None:
        cell = """
            result = await asyncio.sleep(0.001, 5)
            bridge.sleep(0.001)
            g = bridge.spawn(lambda: 7)
            print(result, g.get(), await g, bridge.await_(asyncio.sleep(0, 9)))
            """
        assert loaded.run(cell) == "5 7 7 9\n"

    def test_greenlets_are_plain_code(self, loaded: Kernel) -> None:
        assert loaded.run("bridge.spawn(asyncio._get_running_loop).get() is None") == "True"

    def test_errors_values_and_magics_are_shown_as_always(self, loaded: Kernel) -> None:
        assert loaded.error("bridge.sleep(0); 1 / 0") == "ZeroDivisionError"
        assert loaded.error("this is no python") == "SyntaxError"
        assert loaded.run("bridge.sleep(0); 6 * 7") == "42"
        assert loaded.run("%%capture out\nprint('x')\nbridge.sleep(0)") == ""
        assert loaded.run("out.stdout") == "'x\\n'"
        assert loaded.run("get_ipython().run_cell('bridge.sleep(0); inner = 3'); inner") == "3"

    def test_interrupting_the_kernel_cancels_the_cell(self, loaded: Kernel) -> None:
        ident = loaded.begin(
            """
            try:
                print("begun", flush=True)
                bridge.sleep(1000)
            finally:
                print("cleaned up")
            """
        )
        while True:
            message = loaded.client.get_iopub_msg(timeout=60)
            if message["msg_type"] == "stream" and "begun" in message["content"]["text"]:
                break
        loaded.manager.interrupt_kernel()
        printed, error = loaded.end(ident)
        assert error in ("CancelledError", "KeyboardInterrupt")
        assert "cleaned up" in printed
        assert loaded.run("1 + 1") == "2"

    def test_unloading_makes_cells_what_they_were(self, loaded: Kernel) -> None:
        loaded.run(f"%unload_ext {EXTENSION}")
        assert loaded.error("bridge.sleep(0)") == "BlockingSwitchOutError"
        assert loaded.run("await asyncio.sleep(0, 3)") == "3"
        loaded.run(f"%load_ext {EXTENSION}")
        loaded.run("bridge.sleep(0)")


# -- in a terminal ----------------------------------------------------------------------------------------

TERMINAL = f"""
import asyncio, bridge
from IPython.core.async_helpers import get_asyncio_loop
from IPython.terminal.interactiveshell import TerminalInteractiveShell

shell = TerminalInteractiveShell.instance()

def cell(code):
    result = shell.run_cell(code)
    result.raise_error()
    return result.result

cell("%load_ext {EXTENSION}")
cell("import asyncio, bridge")
"""


def terminal(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TERMINAL + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "IPYTHONDIR": os.devnull + "-none"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_in_a_terminal_greenlets_run_on_ipython_s_loop() -> None:
    terminal(
        """
        cell("bridge.sleep(0.001)")
        assert bridge.get_hub().aio_loop is get_asyncio_loop()
        # an asynchronous cell may block, too
        assert cell("await asyncio.sleep(0); bridge.sleep(0.001); 5") == 5
        cell("g = bridge.spawn_later(0.001, lambda: 7)")
        async def prompt():  # as prompt_toolkit, while the user types
            while not shell.user_ns["g"].dead:
                await asyncio.sleep(0.001)
        get_asyncio_loop().run_until_complete(prompt())
        assert cell("g.get()") == 7
        cell("bridge.sleep(0.001)")
        """
    )


def test_in_a_terminal_with_a_hub_of_its_own_cells_block_on_that() -> None:
    terminal(
        """
        cell("%unload_ext EXTENSION")
        cell("bridge.sleep(0)")
        hub = bridge.get_hub()
        cell("%load_ext EXTENSION")
        assert cell("bridge.spawn(lambda: 3).get()") == 3
        assert bridge.get_hub() is hub
        """.replace("EXTENSION", EXTENSION)
    )


def test_loading_twice_and_unloading_what_is_not_loaded() -> None:
    class Events:
        def register(self, name: str, function: object) -> None: ...
        def unregister(self, name: str, function: object) -> None: ...

    class Shell:
        events = Events()

        def run_cell(self) -> None: ...
        async def run_cell_async(self) -> None: ...
        def should_run_async(self) -> None: ...

    from bridge._ipython import load_ipython_extension, unload_ipython_extension

    async def main() -> None:
        shell = Shell()
        unload_ipython_extension(shell)
        load_ipython_extension(shell)
        first = shell.run_cell_async
        load_ipython_extension(shell)
        assert shell.run_cell_async is first
        unload_ipython_extension(shell)
        assert "run_cell_async" not in vars(shell)

    asyncio.run(main())
