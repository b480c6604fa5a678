"""Clients of the standard library, logging and multiprocessing, patched. Each test in its own process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.engines("none")

Run = Callable[..., str]

#: Servers whose connections are greenlets.
START = """
from bridge import monkey
monkey.patch_all()
import socketserver, threading, time
import bridge

class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.port = self.server_address[1]
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()
    def stop(self):
        self.shutdown()
        self.thread.join()
        self.server_close()

class Lines(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write(text.encode() + b"\\r\\n")
    def hear(self):
        return self.rfile.readline().decode().strip()
"""


def test_smtplib(run_fresh: Run) -> None:
    out = run_fresh(
        START
        + """
import smtplib
from email.message import EmailMessage
mails, barrier = [], threading.Barrier(5)

class SMTP(Lines):
    def handle(self):
        self.say("220 ready")
        while line := self.hear():
            command = line.split()[0].upper()
            if command == "DATA":
                barrier.wait(20)  # all clients are here by now
                self.say("354 go on")
                lines = []
                while (line := self.hear()) != ".":
                    lines.append(line)
                mails.append(lines)
            self.say("221 bye" if command == "QUIT" else "250 ok")
            if command == "QUIT":
                break

server = Server(SMTP)
def send(i):
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = f"mail {i}", "a@example.org", "b@example.org"
    message.set_content("text")
    with smtplib.SMTP("127.0.0.1", server.port, timeout=30) as client:
        client.send_message(message)
bridge.joinall([bridge.spawn(send, i) for i in range(5)], raise_error=True)
server.stop()
print(sorted(line for lines in mails for line in lines if line.startswith("Subject")))
"""
    )
    assert out == f"{[f'Subject: mail {i}' for i in range(5)]}\n"


def test_ftplib(run_fresh: Run) -> None:
    out = run_fresh(
        START
        + """
import ftplib, io, socket
files, barrier = {}, threading.Barrier(4)

class FTP(Lines):
    def handle(self):
        self.say("220 ready")
        while line := self.hear():
            command, _, argument = line.partition(" ")
            if command == "PASV":
                data = socket.create_server(("127.0.0.1", 0))
                port = data.getsockname()[1]
                self.say(f"227 Entering Passive Mode (127,0,0,1,{port >> 8},{port & 255})")
            elif command in ("STOR", "RETR"):
                self.say("150 here it comes")
                connection, _ = data.accept()
                barrier.wait(20)  # all clients are here by now
                with connection, data, connection.makefile("rwb") as file:
                    if command == "STOR":
                        files[argument] = file.read()
                    else:
                        file.write(files[argument])
                self.say("226 done")
            else:
                self.say({"USER": "331 password", "QUIT": "221 bye"}.get(command, "230 ok"))
                if command == "QUIT":
                    break

server = Server(FTP)
def transfer(i):
    with ftplib.FTP() as client:
        client.connect("127.0.0.1", server.port, timeout=30)
        client.login()
        content = bytes([i]) * 300_000
        client.storbinary(f"STOR file{i}", io.BytesIO(content))
        received = []
        client.retrbinary(f"RETR file{i}", received.append)
        assert b"".join(received) == content
bridge.joinall([bridge.spawn(transfer, i) for i in range(4)], raise_error=True)
server.stop()
print(sorted(files))
"""
    )
    assert out == "['file0', 'file1', 'file2', 'file3']\n"


def test_logging_from_many_greenlets(run_fresh: Run, tmp_path: Path) -> None:
    out = run_fresh(
        """
        import logging, sys
        early = logging.StreamHandler(sys.stdout)  # its lock was made before
        from bridge import monkey
        monkey.patch_all()
        import asyncio, io, logging.handlers, queue, threading, time
        import bridge

        class Slow(io.StringIO):
            '''Lets others run in the middle of each record, while the handler's lock is held.'''
            def write(self, text):
                for part in text.partition(" "):
                    super().write(part)
                    time.sleep(0)
        stream = Slow()
        early.setStream(stream)
        early.setFormatter(logging.Formatter("%(threadName)s %(message)s"))
        records = queue.SimpleQueue()
        queued = logging.handlers.QueueHandler(records)
        listener = logging.handlers.QueueListener(records, logging.FileHandler(sys.argv[1]))
        listener.start()
        log = logging.getLogger("test")
        log.setLevel("INFO")
        log.addHandler(early)
        log.addHandler(queued)

        def work(i):
            for j in range(10):
                log.info("%d-%d", i, j)
        threads = [threading.Thread(target=work, args=(i,), name=f"thread{i}") for i in range(20)]
        for t in threads: t.start()
        for t in threads: t.join()
        listener.stop()
        for handler in listener.handlers: handler.close()
        lines = stream.getvalue().splitlines()
        assert sorted(lines) == sorted(f"thread{i} {i}-{j}" for i in range(20) for j in range(10)), lines[:5]
        assert lines != sorted(lines)  # they took turns
        with open(sys.argv[1]) as file:
            assert len(file.read().splitlines()) == 200

        # the hub and real threads log while a greenlet is in the middle of it
        async def main():
            async def coroutine(i):
                log.info("coroutine %d", i)
            bridge.spawn(work, 0)
            await asyncio.sleep(0)
            await asyncio.gather(*map(coroutine, range(5)), *(asyncio.to_thread(work, i) for i in range(3)))
        stream.truncate(0)
        bridge.run(main)
        assert stream.getvalue().count("coroutine") == 5
        print("done")
        """,
        str(tmp_path / "log"),
    )
    assert out == "done\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_processes_and_pipes(run_fresh: Run, tmp_path: Path, method: str) -> None:
    """The children are patched if what they import does it; waiting for them blocks the greenlet only."""
    (tmp_path / "work_of_child.py").write_text(
        "from bridge import monkey\n"
        "monkey.patch_all()\n"
        "import threading, time\n"
        "def work(connection, number):\n"
        "    results = []\n"
        "    threads = [threading.Thread(target=lambda: (time.sleep(0.001), results.append(number)))\n"
        "               for _ in range(3)]\n"
        "    for t in threads: t.start()\n"
        "    for t in threads: t.join()\n"
        "    connection.send(results)\n"
        "    connection.close()\n"
    )
    out = run_fresh(
        """
        import sys
        from work_of_child import work
        import multiprocessing, time
        import bridge
        bridge.sleep(0)
        ticks = []
        def tick():
            while True:
                ticks.append(1)
                time.sleep(0.001)
        ticking = bridge.spawn(tick)
        context = multiprocessing.get_context(sys.argv[1])
        mine, its = context.Pipe()
        process = context.Process(target=work, args=(its, 5))
        process.start()
        its.close()
        ended = context.Process(target=time.sleep, args=(0.05,))
        ended.start()
        del ticks[:]
        ended.join()
        assert ticks and ended.exitcode == 0
        assert mine.poll(30)
        assert mine.recv() == [5, 5, 5]
        process.join()
        assert process.exitcode == 0
        killed = context.Process(target=time.sleep, args=(60,))
        killed.start()
        killed.join(0.01)
        assert killed.is_alive()
        killed.kill()
        killed.join()
        ticking.kill()
        print(killed.exitcode)
        """,
        method,
        path=tmp_path,
    )
    assert out == "-9\n"


WORK = """
import time
def square(x):
    return x * x
def produce(queue, lock, number):
    for i in range(3):
        with lock:
            queue.put((number, i))
def slow(x):
    time.sleep(0.05)
    return x
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_pools_queues_and_managers(run_fresh: Run, tmp_path: Path, method: str) -> None:
    (tmp_path / "work_of_child.py").write_text(WORK)
    out = run_fresh(
        """
        import sys
        from bridge import monkey
        monkey.patch_all()
        import concurrent.futures, multiprocessing, threading, time
        import bridge
        from work_of_child import produce, slow, square
        ticks = []
        def tick():
            while True:
                ticks.append(1)
                time.sleep(0.001)
        bridge.spawn(tick)
        context = multiprocessing.get_context(sys.argv[1])
        with context.Pool(2) as pool:
            assert pool.map(square, range(10)) == [x * x for x in range(10)]
            del ticks[:]
            assert [r.get() for r in [pool.apply_async(slow, (i,)) for i in range(2)]] == [0, 1]
            assert len(ticks) > 3
            assert list(pool.imap_unordered(len, [bytes(1_000_000)])) == [1_000_000]
        queue, lock = context.Queue(), context.Lock()
        children = [context.Process(target=produce, args=(queue, lock, i)) for i in range(2)]
        got = []
        consumers = [threading.Thread(target=lambda: got.append(queue.get())) for _ in range(6)]
        for each in consumers + children: each.start()
        for each in consumers + children: each.join()
        assert sorted(got) == [(number, i) for number in range(2) for i in range(3)]
        try:
            queue.get(timeout=0.01)
        except Exception as error:
            assert type(error).__name__ == "Empty"
        assert not context.Event().wait(0.01)
        with context.Manager() as manager:
            shared = manager.dict(a=1)
            assert dict(shared) == {"a": 1}
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
            assert list(executor.map(square, range(5))) == [0, 1, 4, 9, 16]
        print("done")
        """,
        method,
        path=tmp_path,
    )
    assert out == "done\n"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_executors_of_processes_in_coroutines(run_fresh: Run, tmp_path: Path, method: str, loop: str) -> None:
    (tmp_path / "work_of_child.py").write_text(WORK)
    out = run_fresh(
        """
        import sys
        from bridge import monkey
        monkey.patch_all()
        import asyncio, concurrent.futures, multiprocessing
        import bridge
        from work_of_child import square
        async def main():
            loop = asyncio.get_running_loop()
            context = multiprocessing.get_context(sys.argv[1])
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
                jobs = [loop.run_in_executor(executor, square, i) for i in range(5)]
                return await asyncio.gather(*jobs)
        assert asyncio.run(main()) == [0, 1, 4, 9, 16]
        assert bridge.run(main) == [0, 1, 4, 9, 16]
        print("done")
        """,
        method,
        path=tmp_path,
        BRIDGE_LOOP=loop,
    )
    assert out == "done\n"
