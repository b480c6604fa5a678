"""Flask-SocketIO in its gevent mode: long polling, WebSocket, and from the one to the other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("flask_socketio")
pytest.importorskip("websocket", reason="websocket-client is not installed")

# drop-in mode, and patching: a process of its own
pytestmark = pytest.mark.engines("none")

#: Seconds after which it counts as hung.
HUNG = 60

PROGRAM = """
import sys

from gevent import monkey

monkey.patch_all()

import gevent
import socketio
from flask import Flask
from flask_socketio import SocketIO, emit
from gevent.event import Event
from gevent.queue import Queue

app = Flask(__name__)
server = SocketIO(app, async_mode="gevent")


@server.on("say")
def say(text):
    emit("said", text, broadcast=True)
    return len(text)


@server.on("reverse")
def reverse(data):
    emit("reversed", data[::-1])


@app.route("/page")
def page():
    return "a page"


def news():
    # what comes from the server by itself
    while True:
        server.sleep(0.01)
        server.emit("news", "it rains")


server.start_background_task(news)
listening = Event()
from gevent import pywsgi

start = pywsgi.WSGIServer.start


def started(self):
    start(self)
    started.port = self.server_port
    listening.set()


pywsgi.WSGIServer.start = started
gevent.spawn(server.run, app, host="127.0.0.1", port=0, log_output=False)
listening.wait()
url = f"http://127.0.0.1:{started.port}"


def client(*transports):
    made = socketio.Client()
    made.events = {name: Queue() for name in ("said", "reversed", "news")}
    for name, queue in made.events.items():
        made.on(name, queue.put)
    made.connect(url, transports=list(transports), wait_timeout=20)
    return made


polls, pushes, changes = client("polling"), client("websocket"), client("polling", "websocket")
print(polls.transport(), pushes.transport(), changes.transport())
for number, one in enumerate((polls, pushes, changes)):
    text = f"{number} " + "x" * 70_000
    assert one.call("say", text, timeout=20) == len(text)
    for other in (polls, pushes, changes):
        assert other.events["said"].get(timeout=20) == text
    one.emit("reverse", b"\\x00\\x01\\x02")
    assert one.events["reversed"].get(timeout=20) == b"\\x02\\x01\\x00"
    assert one.events["news"].get(timeout=20) == "it rains"
import requests

print(requests.get(url + "/page", timeout=20).text)
for one in (polls, pushes, changes):
    one.disconnect()
print(gevent.__file__.replace("\\\\", "/").split("/")[-2:], "bridge" in sys.modules)
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_events_go_both_ways_by_polling_and_by_websocket(loop: str, tmp_path: Path) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "bridge", str(script)],
        env={**os.environ, "BRIDGE_LOOP": loop},
        capture_output=True,
        text=True,
        timeout=HUNG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["polling websocket websocket", "a page"], done
    assert "Traceback" not in done.stderr, done.stderr
