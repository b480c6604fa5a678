"""Clients of databases that know nothing of greenlets, patched, with real servers. Programs in own processes.

Each server is started for the module and stopped after it; where a server or a library is missing the test
says so and is skipped.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.engines("none")

Run = Callable[..., str]

#: Something that has to go on while a client waits.
START = """
import sys
from bridge import monkey
monkey.patch_all()
import threading, time
import bridge
ticks = []
def tick():
    while True:
        ticks.append(1)
        time.sleep(0.001)
bridge.spawn(tick)
def all_of(function, count=10):
    jobs = [bridge.spawn(function, i) for i in range(count)]
    bridge.joinall(jobs, raise_error=True)
    return [job.value for job in jobs]
def meanwhile(function, *args):
    '''Others go on while the function waits.'''
    del ticks[:]
    result = function(*args)
    assert len(ticks) > 3, "the thread was blocked"
    return result
"""


def find(*names: str) -> str:
    """The first of these programs that is installed."""
    places = [
        *os.environ["PATH"].split(os.pathsep),
        "/usr/sbin",
        *map(str, Path("/usr/lib/postgresql").glob("*/bin")),
    ]
    for name in names:
        path = shutil.which(name, path=os.pathsep.join(places))
        if path is not None:
            return path
    pytest.skip(f"{names[0]} is not installed")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def user_for_servers() -> str | None:
    """Database servers refuse to run as root."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "mysql", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            pass
    pytest.skip("there is no user but root to run a server as")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # not pytest's: sockets want short paths, and other users have to get in
    path = Path(tempfile.mkdtemp(prefix="bridge-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def running(
    command: list[str], ready: Callable[[], bool], stop: int, user: str | None = None
) -> Iterator[None]:
    """Run a server until the module is done."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        user=user,
    )
    try:
        deadline = time.monotonic() + 60
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                assert process.stdout is not None
                pytest.fail(f"{command[0]} did not start: {process.stdout.read()}")
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(stop)
        process.communicate(timeout=60)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


# -- redis ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    pytest.importorskip("redis", reason="redis-py is not installed")
    command, port = find("redis-server"), free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    for _ in running([command, *options], lambda: answers(port), signal.SIGTERM):
        yield port


def test_redis(run_fresh: Run, redis_port: int) -> None:
    out = run_fresh(
        START
        + """
import redis
client = redis.Redis(port=int(sys.argv[1]), decode_responses=True)
waiting = bridge.spawn(client.blpop, ["list"], 30)
def work(i):
    client.set(f"key{i}", i)
    with client.pipeline() as pipeline:
        for _ in range(10):
            pipeline.incr("counter")
        pipeline.execute()
    return client.get(f"key{i}")
assert all_of(work, 20) == [str(i) for i in range(20)]
assert client.get("counter") == "200"
assert meanwhile(client.blpop, ["nothing"], 0.05) is None
assert not waiting.ready()
client.rpush("list", "item")
assert waiting.get() == ("list", "item")

# a subscriber in a thread
heard = []
pubsub = client.pubsub()
pubsub.subscribe(channel=lambda message: heard.append(message["data"]))
thread = pubsub.run_in_thread(sleep_time=0.01)
while not client.publish("channel", "hello"):
    time.sleep(0.001)
while not heard:
    time.sleep(0.001)
thread.stop()
thread.join()

# a limited pool of connections, a lock of redis, a Timeout that leaves a usable client
pool = redis.BlockingConnectionPool(port=int(sys.argv[1]), max_connections=3)
limited = redis.Redis(connection_pool=pool)
assert all_of(lambda i: limited.execute_command("CLIENT", "ID") > 0, 12) == [True] * 12
order = []
def exclusive(i):
    with client.lock("lock", sleep=0.001):
        order.append(i)
        time.sleep(0.001)
        order.append(i)
all_of(exclusive, 5)
assert order[::2] == order[1::2]
with bridge.Timeout(0.02, False):
    client.blpop(["nothing"], 30)
assert client.get("counter") == "200"
print(*heard)
""",
        str(redis_port),
    )
    assert out == "hello\n"


def test_redis_asyncio_beside_the_blocking_client(run_fresh: Run, redis_port: int) -> None:
    out = run_fresh(
        START
        + """
import asyncio
import redis, redis.asyncio
port = int(sys.argv[1])
async def main():
    async with redis.asyncio.Redis(port=port) as client:
        waiting = asyncio.create_task(client.blpop(["both"], 30))
        await asyncio.sleep(0)
        await bridge.sync_to_async(redis.Redis(port=port).rpush)("both", "item")
        return (await waiting)[1]
print(bridge.run(main))
""",
        str(redis_port),
    )
    assert out == "b'item'\n"


# -- MariaDB --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mariadb_port(folder: Path) -> Iterator[int]:
    pytest.importorskip("pymysql", reason="PyMySQL is not installed")
    command, install = find("mariadbd", "mysqld"), find("mariadb-install-db", "mysql_install_db")
    user, port = user_for_servers(), free_port()
    data = folder / "mariadb"
    data.mkdir()
    if user:
        shutil.chown(data, user)
    options = ["--no-defaults", f"--datadir={data}"]
    as_user = [f"--user={user}"] if user else []
    subprocess.run(
        [install, *options, *as_user, "--auth-root-authentication-method=normal", "--skip-test-db"],
        check=True,
        capture_output=True,
    )
    options += [
        f"--port={port}",
        f"--socket={data}/socket",
        "--bind-address=127.0.0.1",
        "--skip-name-resolve",
    ]
    options += ["--innodb-flush-log-at-trx-commit=0", f"--pid-file={data}/pid"]
    for _ in running([command, *options, *as_user], lambda: answers(port), signal.SIGTERM):
        yield port


def test_pymysql(run_fresh: Run, mariadb_port: int) -> None:
    out = run_fresh(
        START
        + """
import pymysql
def connect(database=None):
    return pymysql.connect(host="127.0.0.1", port=int(sys.argv[1]), user="root", database=database)
with connect() as connection, connection.cursor() as cursor:
    cursor.execute("CREATE DATABASE test_bridge")
    cursor.execute("CREATE TABLE test_bridge.t (i INT PRIMARY KEY, s LONGTEXT) ENGINE=InnoDB")
def work(i):
    with connect("test_bridge") as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (%s, REPEAT('x', 100000))", (i,))
        connection.commit()
        cursor.execute("SELECT i, s FROM t WHERE i = %s", (i,))
        (number, text), = cursor.fetchall()
        return number, len(text)
assert all_of(work) == [(i, 100000) for i in range(10)]
def slow(i):
    with connect() as connection, connection.cursor() as cursor:
        return cursor.execute("SELECT SLEEP(0.05)")
assert meanwhile(all_of, slow) == [1] * 10

# a row that one has locked, another waits for
first, second = connect("test_bridge"), connect("test_bridge")
first.begin()
first.cursor().execute("UPDATE t SET s = '1' WHERE i = 1")
waiting = bridge.spawn(second.cursor().execute, "UPDATE t SET s = '2' WHERE i = 1")
waiting.join(0.02)
assert not waiting.ready()
first.commit()
assert waiting.get() == 1
second.commit()
first.close(), second.close()
print("done")
""",
        str(mariadb_port),
    )
    assert out == "done\n"


# -- PostgreSQL -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres(folder: Path) -> Iterator[str]:
    """Where it listens, as libpq wants it."""
    command, initdb = find("postgres"), find("initdb")
    user, port = user_for_servers(), free_port()
    data = folder / "postgres"
    data.mkdir(mode=0o700)
    if user:
        shutil.chown(data, user)
    subprocess.run(
        [initdb, "-D", str(data), "-U", "test", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
        check=True,
        capture_output=True,
        user=user,
        cwd=folder,
    )
    options = ["-D", str(data), "-p", str(port), "-k", str(data), "-h", "127.0.0.1", "-F"]
    for _ in running([command, *options], lambda: answers(port), signal.SIGINT, user):
        yield f"host=127.0.0.1 port={port} user=test dbname=postgres"


POSTGRES = """
def execute(connection, *query):
    with connection.cursor() as cursor:
        cursor.execute(*query)
        return cursor.fetchall() if cursor.description else None
with closing(connect()) as connection:
    execute(connection, "CREATE TABLE t_NAME (i int PRIMARY KEY, s text)")
    connection.commit()
def work(i):
    with closing(connect()) as connection:
        execute(connection, "INSERT INTO t_NAME VALUES (%s, %s)", (i, "x" * 1000 * i))
        connection.commit()
        (number, text), = execute(connection, "SELECT * FROM t_NAME WHERE i = %s", (i,))
        return number, len(text)
assert all_of(work) == [(i, 1000 * i) for i in range(10)]
def slow(i):
    with closing(connect()) as connection:
        return execute(connection, "SELECT pg_sleep(0.05), %s::int", (i,))[0][1]
assert meanwhile(all_of, slow) == list(range(10))
def wrong(i):
    with closing(connect()) as connection:
        try:
            execute(connection, "SELECT 1 / 0")
        except Exception as error:
            return type(error).__name__
assert set(all_of(wrong, 3)) == {"DivisionByZero"}

# a row that one has locked, another waits for; and one who waits is killed
first, second = connect(), connect()
execute(first, "UPDATE t_NAME SET s = '1' WHERE i = 1")
waiting = bridge.spawn(execute, second, "UPDATE t_NAME SET s = '2' WHERE i = 1")
waiting.join(0.02)
assert not waiting.ready()
first.commit()
waiting.get()
second.commit()
killed = bridge.spawn(slow, 1)
killed.join(0.01)
killed.kill()
assert work(11) == (11, 11000)
first.close(), second.close()
print("done")
"""


def test_psycopg2_with_a_wait_callback(run_fresh: Run, postgres: str) -> None:
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed")
    out = run_fresh(
        START
        + """
from contextlib import closing
import psycopg2.extensions
from bridge.socket import wait_read, wait_write
def wait_callback(connection):
    while True:
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        if state == psycopg2.extensions.POLL_READ:
            wait_read(connection.fileno())
        elif state == psycopg2.extensions.POLL_WRITE:
            wait_write(connection.fileno())
psycopg2.extensions.set_wait_callback(wait_callback)
def connect():
    return psycopg2.connect(sys.argv[1])
"""
        + POSTGRES.replace("NAME", "psycopg2"),
        postgres,
    )
    assert out == "done\n"


@pytest.mark.parametrize("mode", ["drop-in", "told to"])
def test_psycopg(run_fresh: Run, postgres: str, mode: str) -> None:
    """psycopg 3 waits in C unless it finds gevent patched, or is told to wait in Python."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    start, environ = START, {"PSYCOPG_WAIT_FUNC": "wait_selector"}
    if mode == "drop-in":
        start, environ = "import bridge\nbridge.install_as_gevent()\nimport gevent.monkey\n" + START, {}
    out = run_fresh(
        start
        + """
from contextlib import closing
import psycopg
def connect():
    return psycopg.connect(sys.argv[1])
"""
        + POSTGRES.replace("NAME", "psycopg_" + mode.replace("-", "").replace(" ", ""))
        + """
import asyncio
async def main():
    async with await psycopg.AsyncConnection.connect(sys.argv[1]) as connection:
        cursor = await connection.execute("SELECT pg_sleep(0.01), 5")
        return (await cursor.fetchone())[1]
assert bridge.run(main) == 5
""",
        postgres,
        **environ,
    )
    assert out == "done\n"


# -- MongoDB --------------------------------------------------------------------------------------------


def test_pymongo_looks_for_its_server_in_greenlets(run_fresh: Run) -> None:
    """Without a server: its threads, locks and time limits work."""
    pytest.importorskip("pymongo", reason="pymongo is not installed")
    out = run_fresh(
        START
        + """
import socket
import pymongo
from pymongo.errors import ServerSelectionTimeoutError
with socket.create_server(("127.0.0.1", 0)) as nobody:
    port = nobody.getsockname()[1]
client = pymongo.MongoClient("127.0.0.1", port, serverSelectionTimeoutMS=50)
def ask(i):
    try:
        client.test.command("ping")
    except ServerSelectionTimeoutError:
        return "nobody"
assert meanwhile(all_of, ask, 5) == ["nobody"] * 5
client.close()
print("done")
"""
    )
    assert out == "done\n"
