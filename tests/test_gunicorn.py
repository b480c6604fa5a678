"""gunicorn with bridge's workers, and with its own gevent worker on bridge, in real processes."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

gunicorn_wsgi = pytest.importorskip("gunicorn.http.wsgi")
pytestmark = [
    pytest.mark.engines("none"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn needs fork"),
]

#: Seconds after which a process counts as hung.
HUNG = 60

BRIDGE = "bridge.gunicorn.BridgeWorker"
PARSER = "bridge.gunicorn.BridgeParserWorker"
# with a configuration that calls bridge.install_as_gevent()
GEVENT = "gevent"
GUNICORN = "gunicorn.workers.ggevent.GeventWorker"

every = pytest.mark.parametrize("worker", [BRIDGE, PARSER, GEVENT, GUNICORN])

APPLICATION = """
import os, sys, time, threading

inside = 0
full = threading.Event()

def app(environ, start_response):
    global inside
    path = environ["PATH_INFO"]
    body = []
    if path == "/pid":
        body = [str(os.getpid()).encode()]
    elif path == "/environ":
        keys = environ["QUERY_STRING"].split(",")
        body = ["\\n".join(str(environ.get(key)) for key in keys).encode()]
    elif path == "/together":
        # answered when ten are here at the same time
        inside += 1
        if inside == 10:
            full.set()
        full.wait()
        body = [b"together"]
    elif path == "/until":
        # answered when a file is there
        start_response("200 OK", [("Content-Type", "text/plain")])
        return until(environ["QUERY_STRING"])
    elif path == "/echo":
        body = [environ["wsgi.input"].read()]
    elif path == "/error":
        raise LookupError("not in this application")
    elif path == "/exit":
        sys.exit(3)
    elif path == "/hog":
        while True:
            pass
    elif path == "/sleep":
        time.sleep(float(environ["QUERY_STRING"]))
        body = [b"slept"]
    elif path == "/hints":
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
        body = [b"after hints"]
    elif path == "/raw":
        environ["gunicorn.socket"].sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\nraw")
        raise StopIteration
    start_response("200 OK", [("Content-Type", "text/plain"),
                              ("Content-Length", str(sum(map(len, body)))), ("X-Version", VERSION)])
    return body

def until(path):
    yield b"begun "
    while not os.path.exists(path):
        time.sleep(0.001)
    yield b"done"

VERSION = "1"
"""

CONFIG = """
control_socket_disable = True
import bridge
if not WORKER.startswith("bridge"):
    bridge.install_as_gevent()
"""


class Gunicorn:
    """A running gunicorn."""

    def __init__(
        self, folder: Path, worker: str, *arguments: str, config: str = "", bind: str = "127.0.0.1:0"
    ) -> None:
        self.folder = folder
        self.worker = worker
        (folder / "application.py").write_text(APPLICATION)
        (folder / "config.py").write_text(f"WORKER = {worker!r}\n{CONFIG}{config}")
        self.log: list[str] = []
        self._grown = threading.Condition()
        command = [sys.executable, "-m", "gunicorn", "-c", "config.py", "-k", worker, "-b", bind, *arguments]
        self.process = subprocess.Popen(
            [*command, "application:app"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        try:
            match = self.wait_for(r"Listening at: (\S+)")
            self.address = match[1]
            self.wait_for("Booting worker with pid")
        except BaseException:
            self.kill()
            raise

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._grown:
                self.log.append(line)
                self._grown.notify_all()
        with self._grown:
            self.log.append("(the end)")
            self._grown.notify_all()
        self.process.stdout.close()

    @property
    def output(self) -> str:
        """What has been logged and printed."""
        return "".join(self.log)

    def wait_for(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait until ``pattern`` is in the output so many times; returns the last match."""

        def found() -> bool:
            return len(re.findall(pattern, self.output)) >= times or self.log[-1:] == ["(the end)"]

        with self._grown:
            assert self._grown.wait_for(found, HUNG), self.output
        matches = list(re.finditer(pattern, self.output))
        assert len(matches) >= times, self.output
        return matches[-1]

    def connect(self) -> http.client.HTTPConnection:
        if self.address.startswith("unix:"):
            connection = http.client.HTTPConnection("localhost", timeout=HUNG)
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(HUNG)
            connection.sock.connect(self.address[5:])
            return connection
        host, port = self.address.rpartition("/")[2].split(":")
        return http.client.HTTPConnection(host, int(port), timeout=HUNG)

    def get(self, path: str, **headers: str) -> http.client.HTTPResponse:
        """The answer to a request on a connection of its own; ``read()`` has been called."""
        connection = self.connect()
        try:
            connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            body = answer.read()
            answer.read = lambda *args: body  # type: ignore[method-assign, assignment]
            return answer
        finally:
            connection.close()

    def text(self, path: str, **headers: str) -> str:
        return self.get(path, **headers).read().decode()

    def exchange(self, data: bytes) -> bytes:
        """Everything that is answered to ``data``."""
        connection = self.connect()
        connection.connect()
        with connection.sock as sock:
            sock.sendall(data)
            received = b""
            while part := sock.recv(10000):
                received += part
        return received

    def end(self, sig: int = signal.SIGTERM) -> int:
        """Send a signal to the master and wait for the end; returns the exit status."""
        self.process.send_signal(sig)
        try:
            return self.process.wait(timeout=HUNG)
        finally:
            self.kill()

    def kill(self) -> None:
        """End all of its processes."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # they have ended
        self.process.wait()
        self._reader.join()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture
def start(folder: Path) -> Iterator[Any]:
    """Start a gunicorn, which is ended after the test."""
    running: list[Gunicorn] = []

    def make(worker: str, *arguments: str, **kwargs: str) -> Gunicorn:
        gunicorn = Gunicorn(folder, worker, *arguments, **kwargs)
        running.append(gunicorn)
        return gunicorn

    yield make
    for gunicorn in running:
        gunicorn.kill()
        assert "Traceback" not in gunicorn.output or "/hog" in gunicorn.output, gunicorn.output


@pytest.fixture(scope="module", params=[BRIDGE, PARSER, GEVENT, GUNICORN])
def shared(request: pytest.FixtureRequest) -> Iterator[Gunicorn]:
    """A gunicorn for all tests that do not need one of their own."""
    with tempfile.TemporaryDirectory() as path:
        gunicorn = Gunicorn(Path(path), request.param)
        yield gunicorn
        gunicorn.kill()


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# -- requests -------------------------------------------------------------------------------------------


def test_requests_are_served_side_by_side(shared: Gunicorn) -> None:
    gunicorn = shared
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(gunicorn.text("/together"))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["together"] * 10


def test_a_connection_serves_many_requests_and_bodies_of_all_kinds(shared: Gunicorn) -> None:
    gunicorn = shared
    connection = gunicorn.connect()
    for body in (b"", b"x", b"y" * 200_000):
        connection.request("POST", "/echo", body=body)
        assert connection.getresponse().read() == body
        connection.request("POST", "/echo", body=iter([b"ab", body or b"-"]), encode_chunked=True)
        assert connection.getresponse().read() == b"ab" + (body or b"-")
    sock = connection.sock
    connection.request("GET", "/pid")
    answer = connection.getresponse()
    assert answer.version == 11 and answer.headers["Server"] == "gunicorn" and answer.headers["Date"]
    pid = int(answer.read())
    connection.request("HEAD", "/pid")
    answer = connection.getresponse()
    assert (answer.read(), answer.headers["Content-Length"]) == (b"", str(len(str(pid))))
    assert connection.sock is sock
    connection.close()


def test_the_environ_is_gunicorn_s(start: Any) -> None:
    gunicorn = start(BRIDGE, "--workers", "2")
    keys = [
        "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "RAW_URI", "SCRIPT_NAME", "SERVER_PROTOCOL",
        "wsgi.url_scheme", "wsgi.multithread", "wsgi.multiprocess", "wsgi.input_terminated", "HTTP_X_A",
    ]  # fmt: skip
    path = "/environ?" + ",".join(keys)
    port = gunicorn.address.rpartition(":")[2]
    expected = [
        "127.0.0.1", port, "127.0.0.1", path, "", "HTTP/1.1",
        "http", "True", "True", "True", "b",
    ]  # fmt: skip
    assert gunicorn.text(path, X_A="b").splitlines() == expected
    software = gunicorn.text("/environ?SERVER_SOFTWARE,wsgi.file_wrapper,wsgi.errors,gunicorn.socket")
    assert software.startswith("gunicorn/") and "None" not in software


def test_a_unix_socket(start: Any, folder: Path) -> None:
    gunicorn = start(BRIDGE, bind=f"unix:{folder}/s")
    assert gunicorn.text("/environ?REMOTE_ADDR,SERVER_NAME,SERVER_PORT", Host="here:81") == "\nhere\n81"


def test_what_a_trusted_proxy_says_is_believed(shared: Gunicorn) -> None:
    gunicorn = shared
    path = "/environ?wsgi.url_scheme,SCRIPT_NAME"
    assert gunicorn.text(path, X_Forwarded_Proto="https") == "https\n"
    assert gunicorn.text(path, X_Forwarded_Proto="http") == "http\n"
    assert gunicorn.get(path, X_Forwarded_Proto="https", X_Forwarded_Ssl="off").status == 400
    request = b"GET /app/environ?SCRIPT_NAME,PATH_INFO HTTP/1.0\r\nSCRIPT_NAME: /app\r\n\r\n"
    assert gunicorn.exchange(request).endswith(b"\r\n\r\n/app\n/environ")


def test_what_others_say_is_not_believed(start: Any) -> None:
    gunicorn = start(BRIDGE, "--forwarded-allow-ips", "192.0.2.1,192.0.2.2")
    assert gunicorn.text("/environ?wsgi.url_scheme", X_Forwarded_Proto="https") == "http"
    request = b"GET /environ?SCRIPT_NAME,HTTP_SCRIPT_NAME HTTP/1.0\r\nSCRIPT_NAME: /app\r\n\r\n"
    assert gunicorn.exchange(request).endswith(b"\r\n\r\n\nNone")


def test_the_limits_are_gunicorn_s(start: Any) -> None:
    gunicorn = start(
        BRIDGE, "--limit-request-line", "200", "--limit-request-fields", "5",
        "--limit-request-field_size", "500",
    )  # fmt: skip
    assert gunicorn.get("/" + "x" * 300).status == 414
    assert gunicorn.get("/pid", X_Long="x" * 600).status == 431
    many = {f"X_{i}": "y" for i in range(6)}
    assert gunicorn.get("/pid", **many).status == 431
    assert gunicorn.get("/pid", X_Fine="x" * 400).status == 200


def test_invalid_requests_are_refused_and_do_no_harm(shared: Gunicorn) -> None:
    gunicorn = shared
    assert gunicorn.exchange(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert gunicorn.exchange(b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert gunicorn.get("/pid").status == 200
    gunicorn.wait_for(r"\[WARNING\] .*nvalid request", 2)


def test_errors_of_the_application_are_logged_and_answered(shared: Gunicorn) -> None:
    gunicorn = shared
    pid = gunicorn.text("/pid")
    assert gunicorn.get("/error").status == 500
    gunicorn.wait_for(r"\[ERROR\] Error handling request (GET )?/error")
    gunicorn.wait_for("LookupError: not in this application")
    try:
        assert gunicorn.get("/exit").status == 500
    except http.client.HTTPException:
        pass  # gunicorn closes the connection
    assert gunicorn.text("/pid") == pid


def test_early_hints_and_raw_sockets(shared: Gunicorn) -> None:
    gunicorn = shared
    if not hasattr(gunicorn_wsgi, "_make_early_hints_callback") and gunicorn.worker in (PARSER, GUNICORN):
        pytest.skip("this gunicorn's own parser has no early hints")
    answer = gunicorn.exchange(b"GET /hints HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    hints, final = answer.split(b"\r\n\r\n", 1)
    assert hints == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload"
    assert final.startswith(b"HTTP/1.1 200 OK\r\n") and final.endswith(b"\r\n\r\nafter hints")
    # what WebSocket libraries do
    answer = gunicorn.exchange(b"GET /raw HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer == b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nraw"


def test_settings_of_gunicorn_s_parser_make_that_parse(start: Any) -> None:
    gunicorn = start(BRIDGE, "--proxy-protocol", "--casefold-http-method")
    gunicorn.wait_for("parsed by gunicorn.*: casefold_http_method, proxy_protocol")
    request = b"PROXY TCP4 192.0.2.7 127.0.0.1 7777 80\r\nGET /environ?REMOTE_ADDR HTTP/1.0\r\n\r\n"
    assert gunicorn.exchange(request).endswith(b"\r\n\r\n192.0.2.7")


@pytest.mark.parametrize(("worker", "name"), [(GEVENT, "BridgeWorker"), (GUNICORN, "GeventWorker")])
@pytest.mark.parametrize("by", ["before", "configuration", "python -m bridge"])
def test_in_drop_in_mode_the_worker_called_gevent_is_bridge_s(worker: str, name: str, by: str) -> None:
    install = "import bridge; bridge.install_as_gevent()"
    script = f"""
from gunicorn.config import Config
config = Config()
{install if by == "configuration" else ""}
config.set("worker_class", {worker!r})
print(config.worker_class.__name__)
"""
    if by == "before":
        script = f"{install}\n{script}"
    command = [sys.executable, *(["-m", "bridge"] if by == "python -m bridge" else []), "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HUNG)
    assert said.stdout.splitlines()[-1:] == [name], said


def test_the_access_log_has_what_the_format_asks_for(start: Any) -> None:
    form = '<%(h)s %(m)s %(U)s %(q)s %(H)s %(s)s %(B)s "%(r)s" %({x-a}i)s %({x-version}o)s %({raw_uri}e)s>'
    gunicorn = start(BRIDGE, "--access-logfile", "-", "--access-logformat", form)
    gunicorn.get("/environ?X", X_A="b")
    line = gunicorn.wait_for("<.*>")[0]
    assert line == '<127.0.0.1 GET /environ X HTTP/1.1 200 4 "GET /environ?X HTTP/1.1" b 1 /environ?X>'
    gunicorn.exchange(b"BAD\r\n\r\n")
    assert gunicorn.get("/pid").status == 200
    gunicorn.wait_for("<.* /pid>")


HOOKS = """
def post_fork(server, worker):
    worker.log.info("hook: post_fork")
def post_worker_init(worker):
    worker.log.info("hook: post_worker_init")
def pre_request(worker, req):
    fields = dict(req.headers)
    worker.log.info("hook: pre_request %s %s %s %s", req.method, req.path, req.query, fields["X-A"])
def post_request(worker, req, environ, resp):
    worker.log.info("hook: post_request %s %s", environ["PATH_INFO"], resp.status)
def worker_exit(server, worker):
    worker.log.info("hook: worker_exit")
"""


@every
def test_hooks_are_called(start: Any, worker: str) -> None:
    gunicorn = start(worker, config=HOOKS)
    assert gunicorn.get("/pid?a=b", X_A="c").status == 200
    gunicorn.wait_for("hook: post_request")
    assert gunicorn.end() == 0
    assert re.findall("hook: (.*)", gunicorn.output) == [
        "post_fork",
        "post_worker_init",
        "pre_request GET /pid a=b c",
        "post_request /pid 200 OK",
        "worker_exit",
    ]


# -- connections ----------------------------------------------------------------------------------------


@every
def test_without_keep_alive_each_connection_ends_with_its_answer(start: Any, worker: str) -> None:
    gunicorn = start(worker, "--keep-alive", "0")
    answer = gunicorn.exchange(b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in answer


@every
def test_a_connection_without_a_request_is_closed_in_time(start: Any, worker: str) -> None:
    gunicorn = start(worker, "--keep-alive", "1")
    request = b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n"
    answers: dict[bytes, bytes] = {}

    def exchange(data: bytes) -> None:
        answers[data] = gunicorn.exchange(data)

    threads = [threading.Thread(target=exchange, args=(data,)) for data in (b"", request[:-5], request)]
    for thread in threads:
        thread.start()
    # one that has a request under way is not idle
    assert gunicorn.text("/sleep?2.5") == "slept"
    for thread in threads:
        thread.join()
    assert (answers[b""], answers[request[:-5]]) == (b"", b"")
    assert answers[request].startswith(b"HTTP/1.1 200 OK\r\n")


def test_no_more_than_so_many_connections_are_accepted(start: Any, folder: Path) -> None:
    gunicorn = start(BRIDGE, "--worker-connections", "1")
    first = gunicorn.connect()
    first.request("GET", f"/until?{folder}/go")
    answer = first.getresponse()
    assert answer.read(6) == b"begun "
    waiting: list[str] = []
    second = threading.Thread(target=lambda: waiting.append(gunicorn.text("/pid")))
    second.start()
    second.join(0.05)
    assert second.is_alive()
    (folder / "go").touch()
    assert answer.read() == b"done"
    first.close()
    second.join()
    assert waiting


# (gunicorn's own prints a traceback for a handshake that fails, as on gevent)
@pytest.mark.parametrize("worker", [BRIDGE, PARSER, GEVENT])
def test_tls(start: Any, folder: Path, worker: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    files = ["-subj", "/CN=localhost", "-out", f"{folder}/cert.pem", "-keyout", f"{folder}/key.pem"]
    subprocess.run([*command.split(), *files], check=True, stderr=subprocess.DEVNULL)
    gunicorn = start(worker, "--certfile", "cert.pem", "--keyfile", "key.pem", "--log-level", "debug")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, port = gunicorn.address.rpartition("/")[2].split(":")
    connection = http.client.HTTPSConnection(host, int(port), timeout=HUNG, context=context)
    with socket.create_connection((host, int(port))) as slow:  # it does not go on with the handshake
        for body in (b"a", b"b" * 200_000):
            connection.request("POST", "/echo", body=body)
            assert connection.getresponse().read() == body
        slow.sendall(b"GET / HTTP/1.0\r\n\r\n")
        gunicorn.wait_for("TLS handshake failed: ")
    connection.request("GET", "/environ?wsgi.url_scheme")
    assert connection.getresponse().read() == b"https"
    connection.close()


# -- processes ------------------------------------------------------------------------------------------


@every
def test_on_sigterm_requests_under_way_are_finished(start: Any, folder: Path, worker: str) -> None:
    gunicorn = start(worker)
    idle = gunicorn.connect()
    idle.request("GET", "/pid")
    pid = int(idle.getresponse().read())
    busy = gunicorn.connect()
    busy.request("GET", f"/until?{folder}/go")
    answer = busy.getresponse()
    assert answer.read(6) == b"begun "
    gunicorn.process.send_signal(signal.SIGTERM)
    gunicorn.wait_for("Handling signal: term")
    # (gunicorn's gevent worker leaves the idle connection to its time limit)
    assert idle.sock.recv(1) == b""
    idle.close()
    assert not ended(pid)
    (folder / "go").touch()
    assert answer.read() == b"done"
    busy.close()
    assert gunicorn.process.wait(timeout=HUNG) == 0
    assert ended(pid)


def test_after_the_graceful_timeout_requests_are_cut_off(start: Any, folder: Path) -> None:
    gunicorn = start(BRIDGE, "--graceful-timeout", "1")
    busy = gunicorn.connect()
    busy.request("GET", f"/until?{folder}/never")
    answer = busy.getresponse()
    assert answer.read(6) == b"begun "
    gunicorn.process.send_signal(signal.SIGTERM)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()
    busy.close()
    assert gunicorn.process.wait(timeout=HUNG) == 0


@pytest.mark.parametrize(("worker", "sig"), [(BRIDGE, signal.SIGINT), (PARSER, signal.SIGQUIT)])
def test_sigint_and_sigquit_end_at_once(start: Any, folder: Path, worker: str, sig: int) -> None:
    gunicorn = start(worker)
    busy = gunicorn.connect()
    busy.request("GET", f"/until?{folder}/never")
    answer = busy.getresponse()
    assert answer.read(6) == b"begun "
    assert gunicorn.end(sig) == 0
    busy.close()


@every
def test_sighup_reloads_the_application_and_loses_no_request(start: Any, folder: Path, worker: str) -> None:
    gunicorn = start(worker)
    before = gunicorn.get("/pid")
    busy = gunicorn.connect()
    busy.request("GET", f"/until?{folder}/go")
    answer = busy.getresponse()
    assert answer.read(6) == b"begun "
    # of another length, or what was compiled within the same second would do
    (folder / "application.py").write_text(APPLICATION.replace('VERSION = "1"', 'VERSION = "2.0"'))
    gunicorn.process.send_signal(signal.SIGHUP)
    gunicorn.wait_for("Booting worker with pid", 2)
    while (after := gunicorn.get("/pid")).headers["X-Version"] != "2.0":
        assert after.read() == before.read()
    assert after.read() != before.read()
    (folder / "go").touch()
    assert answer.read() == b"done"
    busy.close()
    gunicorn.wait_for(rf"Worker exiting \(pid: {before.read().decode()}\)")


SAYS_WHEN_READY = """
def post_worker_init(worker):
    worker.log.info("worker is ready")
"""


def test_reloads_under_load_lose_no_request(start: Any) -> None:
    gunicorn = start(BRIDGE, "--workers", "2", config=SAYS_WHEN_READY)
    stop = threading.Event()
    served: list[int] = []
    lost: list[Exception] = []

    def load() -> None:
        connection = gunicorn.connect()
        count = 0
        try:
            while not stop.is_set():
                # (http.client connects anew by itself after an answer that says "Connection: close")
                connection.request("GET", "/pid")
                connection.getresponse().read()
                count += 1
        except Exception as e:
            lost.append(e)
        finally:
            connection.close()
            served.append(count)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for ready in (2, 4):
        gunicorn.wait_for("worker is ready", ready)  # a signal that comes earlier is lost
        gunicorn.process.send_signal(signal.SIGHUP)
        gunicorn.wait_for("Worker exiting", ready)
    stop.set()
    for thread in threads:
        thread.join()
    assert lost == [] and all(served)


@every
def test_workers_share_the_connections(start: Any, worker: str) -> None:
    gunicorn = start(worker, "--workers", "2")
    gunicorn.wait_for("Booting worker with pid", 2)
    seen: set[str] = set()
    while len(seen) < 2:
        seen.add(gunicorn.text("/pid"))
    assert gunicorn.end() == 0


@every
def test_after_max_requests_a_worker_is_replaced(start: Any, worker: str) -> None:
    gunicorn = start(worker, "--max-requests", "3")
    first = gunicorn.text("/pid")
    connection = gunicorn.connect()
    connection.request("GET", "/pid")
    assert connection.getresponse().read().decode() == first
    connection.request("GET", "/pid")
    answer = connection.getresponse()
    assert answer.read().decode() == first and answer.headers["Connection"] == "close"
    connection.close()
    gunicorn.wait_for("Autorestarting worker after current request")
    gunicorn.wait_for("Booting worker with pid", 2)
    assert gunicorn.text("/pid") != first


def test_a_worker_that_is_stuck_is_replaced_and_one_that_waits_is_not(start: Any) -> None:
    gunicorn = start(BRIDGE, "--timeout", "1")
    pid = gunicorn.text("/pid")
    assert gunicorn.text("/sleep?2") == "slept"
    assert gunicorn.text("/pid") == pid
    try:
        assert gunicorn.get("/hog").status == 500
    except (http.client.HTTPException, ConnectionResetError):
        pass  # if the master had to kill it
    gunicorn.wait_for("WORKER TIMEOUT")
    assert gunicorn.text("/pid") != pid


def test_sigusr1_reopens_the_logs(start: Any, folder: Path) -> None:
    gunicorn = start(BRIDGE, "--access-logfile", "access.log")
    pid = int(gunicorn.text("/pid?1"))
    (folder / "access.log").rename(folder / "old.log")
    os.kill(pid, signal.SIGUSR1)
    while not (folder / "access.log").exists():
        gunicorn.text("/pid?between")
    gunicorn.text("/pid?2")
    gunicorn.end()
    assert "/pid?1" in (folder / "old.log").read_text()
    assert "/pid?2" in (folder / "access.log").read_text()


def test_a_worker_whose_master_has_died_ends(start: Any) -> None:
    gunicorn = start(BRIDGE)
    gunicorn.text("/pid")
    gunicorn.process.kill()
    # the end of the output is that of the worker, which has inherited it
    gunicorn.wait_for("Parent changed, shutting down")
    gunicorn.wait_for("Worker exiting")


def test_networks_of_trusted_proxies() -> None:
    from bridge.gunicorn import _Addresses

    some = _Addresses(["10.0.0.0/8", "192.0.2.1", "::1"])
    assert ("10.1.2.3", 1) in some and ("192.0.2.1", 1) in some and ("::1", 1, 0, 0) in some
    assert ("192.0.2.2", 1) not in some and ("fe80::1%eth0", 1, 0, 2) not in some
    assert "" in some  # a Unix socket
    assert ("not an address", 1) not in some
    assert ("192.0.2.2", 1) in _Addresses(["*"])
