"""The examples of the asyncio side do what they say."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

import bridge

pytestmark = pytest.mark.engines("none")

EXAMPLES = Path(__file__).parent.parent / "examples"


def command(name: str, *arguments: str) -> list[str]:
    module = ["-m", "bridge"] if name == "migration/step1_gevent.py" else []
    return [sys.executable, *module, str(EXAMPLES / name), *arguments]


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(command(name, *arguments), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


class Site(BaseHTTPRequestHandler):
    """Twenty pages, each with links to two others."""

    def do_GET(self) -> None:
        number = self.path.strip("/") or "0"
        if not number.isdigit():
            self.send_error(404)
            return
        links = "".join(
            f'<a href="/{n}">next</a>' for n in (2 * int(number) + 1, 2 * int(number) + 2) if n < 20
        )
        body = f"<title>page {int(number):02}</title>{links}".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("step", sorted(p.name for p in (EXAMPLES / "migration").glob("*.py")))
def test_each_step_of_the_migration_crawls_the_whole_site(step: str, site: str) -> None:
    if step > "step3":
        pytest.importorskip("httpx")
    expected = ["page 00 " + site] + [f"page {n:02} {site}{n}" for n in range(1, 20)]
    assert sorted(run(f"migration/{step}", site).splitlines()) == sorted(expected)


def test_there_are_five_steps() -> None:
    assert len(list((EXAMPLES / "migration").glob("step*.py"))) == 5


def test_aiohttp_in_greenlets(site: str) -> None:
    pytest.importorskip("aiohttp")
    out = run("aiohttp_in_greenlets.py", site, site + "missing").splitlines()
    assert [line.split()[0] for line in out] == ["200", "404"]
    assert out[0].endswith(site)


def test_sqlalchemy() -> None:
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("aiosqlite")
    assert run("sqlalchemy_async.py") == "ann: 3\nbob: 5\ntotal: 8\n"


def test_fastapi_with_a_legacy_client() -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(command("fastapi_legacy_client.py", str(port)))
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = urlopen(f"http://127.0.0.1:{port}/greenlet/hello").read()
                break
            except URLError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
        assert json.loads(answer) == {"answer": "HELLO"}
        assert json.loads(urlopen(f"http://127.0.0.1:{port}/portal/you").read()) == {"answer": "YOU"}
    finally:
        server.terminate()
        server.wait()


@pytest.mark.skipif(
    not hasattr(bridge, "load_ipython_extension"), reason="bridge does not export its IPython extension"
)
@pytest.mark.filterwarnings("ignore")
def test_the_notebook() -> None:
    pytest.importorskip("ipykernel")
    client = importlib.import_module("jupyter_client.manager")
    manager, kernel = client.start_new_kernel(
        kernel_name="python3", env={**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    )
    results: list[str] = []

    def output(message: Any) -> None:
        if message["msg_type"] == "execute_result":
            results.append(message["content"]["data"]["text/plain"])

    try:
        for cell in json.loads((EXAMPLES / "jupyter.ipynb").read_text())["cells"]:
            if cell["cell_type"] == "code":
                reply = kernel.execute_interactive("".join(cell["source"]), timeout=60, output_hook=output)
                assert reply["content"]["status"] == "ok", reply
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)
    assert results == ["[0, 1, 4, 9, 16]", "(2, 4, 6)"]
