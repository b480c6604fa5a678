"""select, poll, selectors, and the waits for one descriptor that they share."""

from __future__ import annotations

import asyncio
import errno
import os
import select as real_select
import selectors as real_selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import bridge
from bridge import _fdset, _fdwait, select, selectors
from bridge import os as bridge_os
from bridge import socket as bridge_socket
from bridge._core import poller as poller_module
from bridge._fdwait import wait_fd, wait_read, wait_readwrite, wait_write
from bridge.exceptions import BlockingSwitchOutError

from .helpers import Pipes, rounds_in

READ, WRITE = 1, 2


@pytest.fixture
def pipe() -> Iterator[Pipes]:
    with Pipes(blocking=False) as pipes:
        yield pipes


def fill(w: int) -> None:
    try:
        while True:
            os.write(w, b"x" * 65536)
    except BlockingIOError:
        pass


# -- one descriptor -------------------------------------------------------------------------------


def test_a_wait_ends_when_the_descriptor_is_ready_and_says_for_what(pipe: Pipes) -> None:
    r, w = pipe()
    bridge.spawn_later(0.002, os.write, w, b"x")
    assert wait_fd(r, READ) == READ
    assert wait_fd(w, WRITE) == WRITE
    a, b = socket.socketpair()
    with a, b:
        assert wait_fd(a, READ | WRITE) == WRITE
        b.send(b"x")
        assert wait_fd(a, READ | WRITE) == READ | WRITE
    wait_read(r)
    wait_write(w)
    wait_readwrite(w)


def test_a_timeout_raises_what_was_asked_for(pipe: Pipes) -> None:
    r, _w = pipe()
    with pytest.raises(TimeoutError, match="timed out"):
        wait_read(r, 0.001)
    with pytest.raises(KeyError, match="mine"):
        wait_read(r, 0.001, KeyError("mine"))
    with pytest.raises(KeyError):
        wait_read(r, timeout=0.001, timeout_exc=KeyError)
    with pytest.raises(bridge.Timeout):
        wait_read(r, 0.001, None)
    timeout = bridge.Timeout(0.001)
    with pytest.raises(bridge.Timeout) as caught:
        wait_read(r, timeout)
    assert caught.value is timeout and not timeout.pending
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.001):
        wait_read(r)
    assert bridge.get_hub().loop.activecnt == 0


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_of_zero_only_looks(pipe: Pipes, timeout: int) -> None:
    r, w = pipe()
    with pytest.raises(TimeoutError):
        wait_read(r, timeout)
    os.write(w, b"x")
    wait_read(r, timeout)
    wait_write(w, timeout)
    assert wait_fd(r, READ | WRITE, timeout) == READ


def test_errors_are_those_of_the_standard_library(pipe: Pipes) -> None:
    r, w = pipe()
    pipe.close(r)
    bad = pipe.closed()
    for timeout in (None, 0, 1):
        with pytest.raises(OSError) as caught:
            wait_read(bad, timeout)
        assert caught.value.errno == errno.EBADF
    with pytest.raises(ValueError, match="negative integer"):
        wait_read(-1)
    no_file: Any = "x"
    with pytest.raises(TypeError, match="fileno"):
        wait_read(no_file)
    # the other end of the pipe is gone: that is something to write, namely an error
    wait_write(w)


def test_a_regular_file_is_always_ready(tmp_path: Any) -> None:
    with open(tmp_path / "file", "w+") as file:
        for _ in range(2):
            wait_read(file)
            wait_write(file.fileno(), 0)
        assert rounds_in(0.01) < 10


def test_several_wait_for_one_descriptor_and_each_gets_its_own(pipe: Pipes) -> None:
    a, b = socket.socketpair()
    with a, b:
        readers = [bridge.spawn(wait_read, a) for _ in range(3)]
        writer = bridge.spawn(wait_write, a)
        writer.get(timeout=5)
        bridge.sleep(0.001)
        assert not any(reader.ready() for reader in readers)
        readers[1].kill()
        b.send(b"x")
        readers[0].get(timeout=5)
        readers[2].get(timeout=5)


def test_an_undone_wait_leaves_nothing_behind(pipe: Pipes) -> None:
    r, w = pipe()
    g = bridge.spawn(wait_read, r)
    bridge.sleep(0)
    os.write(w, b"x")
    g.kill()
    assert rounds_in(0.01) < 10
    assert bridge.get_hub().loop.activecnt == 0
    wait_read(r, 1)


@pytest.mark.parametrize("wait", [wait_read, lambda fd: bridge_os.nb_read(fd, 1)])
def test_who_waits_for_a_descriptor_that_is_closed_gets_ebadf(pipe: Pipes, wait: Any) -> None:
    r, _w = pipe()
    caught = []

    def waiter() -> None:
        try:
            wait(r)
        except OSError as e:
            caught.append(e.errno)

    g = bridge.spawn(waiter)
    bridge.sleep(0.001)
    pipe.close(r, bridge_os.close)
    g.join(timeout=5)
    assert caught == [errno.EBADF]


def test_a_descriptor_closed_behind_our_back_and_used_again_wakes_the_new_waiter(pipe: Pipes) -> None:
    r, _w = pipe()
    old = bridge.spawn(wait_read, r)
    bridge.sleep(0.001)
    r2, w2 = pipe()
    os.dup2(r2, r)  # the number means another file now
    new = bridge.spawn(wait_read, r)
    bridge.sleep(0.001)
    assert not new.ready()
    os.write(w2, b"x")
    new.get(timeout=5)
    old.get(timeout=5)


def test_the_registration_kept_from_an_earlier_wait_is_not_taken_for_the_new_file(pipe: Pipes) -> None:
    r, w = pipe()
    os.write(w, b"x")
    wait_read(r)
    pipe.close(r)
    r2, w2 = pipe()
    assert r2 == r
    with pytest.raises(TimeoutError):
        wait_read(r2, 0.002)
    bridge.spawn_later(0.001, os.write, w2, b"x")
    wait_read(r2, 5)


def test_urgent_data_is_not_something_to_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:
        a = stack.enter_context(socket.create_connection(server.getsockname()))
        b = stack.enter_context(server.accept()[0])
        a.send(b"!", socket.MSG_OOB)
        assert select.select([b], [], [b], 1) == ([], [], [b])
        with pytest.raises(TimeoutError):
            wait_read(b, 0.002)


@pytest.mark.engines("owned")
def test_a_wait_in_the_hub_is_refused_at_once(pipe: Pipes) -> None:
    r, _w = pipe()
    done: list[object] = []

    def in_hub() -> None:
        for call in (
            lambda: wait_read(r),
            lambda: select.select([r], [], [], 1),
            lambda: select.select([], [r], [], None),
        ):
            with pytest.raises(BlockingSwitchOutError):
                call()
        # what only looks does not block
        done.append(select.select([r], [], [], 0))

    bridge.get_hub().loop.run_callback(in_hub)
    bridge.sleep(0.001)
    assert done == [([], [], [])]


@pytest.mark.parametrize("size", [1, 20])
@pytest.mark.asyncio
async def test_below_a_portal_all_of_them_wait_as_elsewhere(pipe: Pipes, size: int) -> None:
    pipes = pipe.many(size)
    fds = [r for r, _w in pipes]
    r, w = pipes[-1]
    loop = asyncio.get_running_loop()

    def soon() -> None:
        loop.call_later(0.003, os.write, w, b"x")

    @bridge.portal
    async def main() -> None:
        soon()
        assert select.select(fds, [], []) == ([r], [], [])
        assert bridge_os.nb_read(r, 1) == b"x"
        soon()
        wait_read(r)
        assert bridge_os.nb_read(r, 1) == b"x"
        soon()
        assert bridge_os.nb_read(r, 1) == b"x"
        poll = select.poll()
        with selectors.GeventSelector() as selector:
            for fd in fds:
                poll.register(fd, select.POLLIN)
                selector.register(fd, selectors.EVENT_READ)
            soon()
            assert poll.poll() == [(r, select.POLLIN)]
            assert bridge_os.nb_read(r, 1) == b"x"
            soon()
            assert [key.fd for key, _events in selector.select()] == [r]
        assert bridge_os.nb_read(r, 1) == b"x"
        async with asyncio.timeout(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    select.select(fds, [], [])

    await main()
    with pytest.raises(BlockingSwitchOutError):
        select.select(fds, [], [], 1)


def test_each_thread_waits_in_its_own_loop(pipe: Pipes) -> None:
    pipes = pipe.many(10)
    results: list[Any] = []

    def thread() -> None:
        bridge.spawn_later(0.001, os.write, pipes[3][1], b"x")
        results.append(select.select([r for r, _w in pipes], [], [], 5))
        bridge.get_hub().destroy(destroy_loop=True)

    t = threading.Thread(target=thread)
    t.start()
    t.join()
    assert results == [([pipes[3][0]], [], [])]


# -- select ---------------------------------------------------------------------------------------

SIZES = [1, 3, 8, 40]


@pytest.mark.parametrize("size", SIZES)
def test_select_returns_what_is_ready(pipe: Pipes, size: int) -> None:
    pipes = pipe.many(size)
    readers = [r for r, _w in pipes]
    writers = [w for _r, w in pipes]
    assert select.select(readers, [], [], 0) == ([], [], [])
    assert select.select(readers, [], [], 0.003) == ([], [], [])
    assert select.select(readers, writers, [], 5) == ([], writers, [])
    for _ in range(3):
        r, w = pipes[size // 2]
        bridge.spawn_later(0.001, os.write, w, b"x")
        assert select.select(readers, [], []) == ([r], [], [])
        assert select.select(tuple(readers), [], readers, 0.001) == ([r], [], [])
        os.read(r, 1)
    # longer than it takes to make sure of the kept set
    bridge.spawn_later(0.02, os.write, w, b"x")
    assert select.select(iter(readers), [], [], 5) == ([r], [], [])


@pytest.mark.parametrize("size", SIZES)
def test_select_gives_back_the_objects_it_was_given(size: int) -> None:
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(size)]
        for a, b in pairs:
            stack.enter_context(a)
            stack.enter_context(b)
        a, b = pairs[-1]
        bridge.spawn_later(0.001, b.send, b"x")
        found = select.select([x for x, _y in pairs] * 2, [], [])
        assert found == ([a, a], [], [])
        assert found[0][0] is a


@pytest.mark.parametrize("size", SIZES)
def test_killed_and_timed_out_selects_leave_nothing_behind(pipe: Pipes, size: int) -> None:
    readers = [r for r, _w in pipe.many(size)]
    g = bridge.spawn(select.select, readers, [], [])
    bridge.sleep(0.005)
    g.kill()
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.001):
        select.select(readers, [], [])
    poller = bridge.get_hub().loop.get_poller()
    assert bridge.get_hub().loop.activecnt == 0
    assert not poller.closing
    assert not any(reg.interests for reg in poller.fds.values())


def test_the_limit_of_a_select_may_be_a_timeout(pipe: Pipes) -> None:
    r, w = pipe()
    assert select.select([r], [], [], bridge.Timeout(0.001)) == ([], [], [])
    assert select.select([r], [w], [], bridge.Timeout(100)) == ([], [w], [])
    with pytest.raises(KeyError):
        select.select([r], [], [], bridge.Timeout(0.001, KeyError))
    with bridge.Timeout(0.001) as counting:  # one that has begun before
        assert select.select([r], [], [], counting) == ([], [], [])


def test_select_lets_others_run_even_if_it_need_not_wait(pipe: Pipes) -> None:
    _r, w = pipe()
    ran: list[int] = []
    g = bridge.spawn(lambda: [(ran.append(1), bridge.sleep(0)) for _ in range(4)])
    select.select([], [w], [])
    select.select([], [w], [], 0)
    assert ran == [1, 1]
    poll = select.poll()
    poll.register(w)
    poll.poll()
    assert ran == [1, 1, 1]
    g.join()


def test_select_refuses_what_the_real_one_refuses(pipe: Pipes) -> None:
    bad = pipe.closed()
    call: Any = select.select
    with pytest.raises(ValueError, match="non-negative"):
        call([], [], [], -1)
    with pytest.raises(TypeError):
        call([], [], [], "1")
    with pytest.raises(TypeError):
        call(["hello"], [], [], 0.001)
    with pytest.raises(TypeError):
        call(5, [], [])
    with pytest.raises(ValueError, match="negative"):
        call([-1], [], [], 0)
    for timeout in (0, 0.001, None):
        with pytest.raises(OSError) as caught:
            call([bad], [], [], timeout)
        assert caught.value.errno == errno.EBADF
    assert select.error is OSError


@pytest.mark.parametrize("size", SIZES)
def test_closing_a_descriptor_ends_the_select_for_it(pipe: Pipes, size: int) -> None:
    readers = [r for r, _w in pipe.many(size)]
    g = bridge.spawn(lambda: pytest.raises(OSError, select.select, readers, [], []).value.errno)
    bridge.sleep(0.001)
    pipe.close(readers[-1], bridge_os.close)
    assert g.get(timeout=5) == errno.EBADF


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("delay", [0, 0.001])
def test_a_socket_closed_meanwhile_is_ready_one_closed_before_is_an_error(size: int, delay: float) -> None:
    pairs = [bridge_socket.socketpair() for _ in range(size)]
    lefts = [left for left, _ in pairs]
    try:
        bridge.spawn_later(delay, lefts[-1].close) if delay else bridge.spawn(lefts[-1].close)
        assert select.select(lefts, [], [], 5) == ([lefts[-1]], [], [])
        for timeout in (5, 0):
            with pytest.raises(ValueError, match="file descriptor cannot be a negative integer"):
                select.select(lefts, [], [], timeout)
    finally:
        for pair in pairs:
            pair[0].close()
            pair[1].close()


def test_fileno_of_what_is_ready_is_asked_once(pipe: Pipes) -> None:
    _r, w = pipe()
    asked = []

    class File:
        def fileno(self) -> int:
            asked.append(self)
            return w

    assert len(select.select([], [File(), File()], [], 5)[1]) == 2
    assert len(asked) == 2


@pytest.mark.parametrize("size", [8, 40])
def test_a_kept_set_notices_that_a_number_is_in_use_again(pipe: Pipes, size: int) -> None:
    pipes = pipe.many(size)
    readers = [r for r, _w in pipes]
    assert select.select(readers, [], [], 0.001) == ([], [], [])
    r = readers[size // 2]
    pipe.close(r)
    r2, w2 = pipe()
    assert r2 == r
    # the same numbers as before: the set that was kept looks right, and is not
    bridge.spawn_later(0.001, os.write, w2, b"x")
    assert select.select(readers, [], [], 5) == ([r], [], [])


def test_the_ghost_of_a_closed_file_does_not_keep_the_process_busy(pipe: Pipes) -> None:
    pipes = pipe.many(10)
    readers = [r for r, _w in pipes]
    assert select.select(readers, [], [], 0.001) == ([], [], [])
    r, w = pipes[5]
    elsewhere = os.dup(r)  # in a forked child, say
    pipe.fds.add(elsewhere)
    pipe.close(r)
    r2, w2 = pipe()
    assert r2 == r
    os.write(w, b"x")  # readable for ever, under the old number, in the kept set
    g = bridge.spawn(select.select, readers, [], [], 5)
    bridge.sleep(0.005)
    assert rounds_in(0.05) < 30
    os.write(w2, b"x")
    assert g.get(timeout=5) == ([r], [], [])


def test_select_falls_back_to_looking_where_epoll_says_more_than_select() -> None:
    # A hang-up is no exceptional condition for select(), but epoll reports it whatever is asked.
    pairs = [socket.socketpair() for _ in range(6)]
    with ExitStack() as stack:
        for a, b in pairs:
            stack.enter_context(a)
            b.close()
        g = bridge.spawn(select.select, [], [], [a for a, _b in pairs], 0.06)
        bridge.sleep(0.01)
        assert rounds_in(0.03) < 30
        assert g.get(timeout=5) == ([], [], [])


def test_descriptors_too_big_for_the_real_select(pipe: Pipes) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip("not so many descriptors are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    try:
        r, w = pipe()
        big = os.dup2(r, 1500)
        pipe.fds.add(big)
        assert select.select([big], [w], [], 0) == ([], [w], [])
        assert select.select([big], [], [], 0.001) == ([], [], [])
        bridge.spawn_later(0.001, os.write, w, b"x")
        assert select.select([big, r], [], [big], 5) == ([big, r], [], [])
        with pytest.raises(OSError):
            select.select([big, 1999], [], [], 0)
        with pytest.raises(ValueError):
            select.select([big, -1], [], [], 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_select_without_descriptors_sleeps() -> None:
    begin = time.monotonic()
    assert select.select([], [], [], 0.01) == ([], [], [])
    assert time.monotonic() - begin >= 0.01


def test_the_module_mirrors_the_real_one() -> None:
    assert select.__implements__ == ["select", "poll"]
    assert set(select.__all__) == {"error", "select", "poll"}
    for name in select.__imports__:
        assert getattr(select, name) is getattr(real_select, name)
    missing = set(dir(real_select)) - set(dir(select))
    assert not {name for name in missing if not name.startswith("_")}


# -- poll -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_poll_reports_events_as_the_real_one(pipe: Pipes, size: int) -> None:
    pipes = pipe.many(size)
    poll = select.poll()
    for r, _w in pipes:
        poll.register(r, select.POLLIN)
    assert poll.poll(0) == []
    assert poll.poll(3) == []
    for _ in range(3):
        r, w = pipes[size // 2]
        bridge.spawn_later(0.001, os.write, w, b"x")
        assert poll.poll() == [(r, select.POLLIN)]
        assert poll.poll(-1) == poll.poll(0.5) == [(r, select.POLLIN)]
        os.read(r, 1)
    poll.modify(r, select.POLLIN | select.POLLOUT)
    bridge.spawn_later(0.02, pipe.close, w)
    assert poll.poll(5000) == [(r, select.POLLHUP)]
    poll.unregister(r)
    assert poll.poll(0) == []


def test_errors_and_hangups_are_reported_whatever_the_mask() -> None:
    a, b = socket.socketpair()
    with a:
        poll = select.poll()
        poll.register(a, 0)
        bridge.spawn_later(0.001, b.close)
        assert poll.poll(5000) == [(a.fileno(), select.POLLHUP)]
        poll.register(a)
        assert poll.poll(0)[0][1] == select.POLLHUP | select.POLLIN | select.POLLOUT


def test_a_closed_descriptor_is_reported_as_invalid(pipe: Pipes) -> None:
    for size in SIZES:
        fds = [r for r, _w in pipe.many(size)]
        poll = select.poll()
        for r in fds:
            poll.register(r, select.POLLIN)
        g = bridge.spawn(poll.poll)
        bridge.sleep(0.003)
        pipe.close(fds[0], bridge_os.close)
        assert g.get(timeout=5) == poll.poll(1) == [(fds[0], select.POLLNVAL)]


def test_a_number_registered_again_means_the_new_file(pipe: Pipes) -> None:
    pipes = pipe.many(30)
    poll = select.poll()
    for r, _w in pipes:
        poll.register(r, select.POLLIN)
    assert poll.poll(1) == []
    r, _w = pipes[7]
    pipe.close(r)
    r2, w2 = pipe()
    assert r2 == r
    poll.register(r2, select.POLLIN)
    bridge.spawn_later(0.001, os.write, w2, b"x")
    assert poll.poll(5000) == [(r, select.POLLIN)]


def test_what_poll_refuses_and_what_not(pipe: Pipes) -> None:
    r, w = pipe()
    poll: Any = select.poll()
    with pytest.raises(KeyError):
        poll.unregister(r)
    poll.modify(w, select.POLLOUT)  # registers it, as in gevent
    assert poll.poll(0) == [(w, select.POLLOUT)]
    poll.unregister(w)
    with pytest.raises(KeyError):
        poll.unregister(w)
    with pytest.raises(ValueError):
        poll.register(-1)
    with pytest.raises(TypeError):
        poll.register("x")
    with pytest.raises(TypeError, match="milliseconds"):
        poll.poll("x")
    with pytest.raises(BlockingSwitchOutError):
        _in_hub(poll.poll)
    assert _in_hub(lambda: poll.poll(0)) == []


def _in_hub(call: Callable[[], Any]) -> Any:
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as e:
            outcome.append(e)

    bridge.get_hub().loop.run_callback(run)
    bridge.sleep(0)
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def test_two_greenlets_may_poll_one_object(pipe: Pipes) -> None:
    pipes = pipe.many(30)
    poll = select.poll()
    for r, _w in pipes:
        poll.register(r, select.POLLIN)
    greenlets = [bridge.spawn(poll.poll, 5000) for _ in range(2)]
    bridge.sleep(0.005)
    os.write(pipes[2][1], b"x")
    assert [g.get(timeout=5) for g in greenlets] == [[(pipes[2][0], select.POLLIN)]] * 2


def test_poll_where_the_system_has_none(pipe: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_new_poll", _fdwait._SelectPoll)
    monkeypatch.setattr(select, "_new_epoll", None)
    monkeypatch.setattr(_fdset, "_new_epoll", None)
    pipes = pipe.many(20)
    poll = select.poll()
    for r, w in pipes:
        poll.register(r, select.POLLIN)
        poll.register(w, 0)
    assert poll.poll(1) == []
    r, w = pipes[4]
    bridge.spawn_later(0.001, os.write, w, b"x")
    assert poll.poll() == [(r, select.POLLIN)]
    pipe.close(pipes[5][0])
    assert dict(poll.poll(1)) == {r: select.POLLIN, pipes[5][0]: select.POLLNVAL}
    poll.unregister(r)
    with pytest.raises(KeyError):
        poll.unregister(r)
    fallback = _fdwait._SelectPoll()
    with pytest.raises(FileNotFoundError):
        fallback.modify(r, 1)


# -- selectors ------------------------------------------------------------------------------------


def test_a_selector_returns_keys_and_events(pipe: Pipes) -> None:
    a, b = socket.socketpair()
    with a, b, selectors.DefaultSelector() as selector:
        key = selector.register(a, selectors.EVENT_READ, "data")
        assert (key.fileobj, key.events, key.data) == (a, selectors.EVENT_READ, "data")
        assert selector.select(0) == selector.select(-1) == selector.select(0.002) == []
        bridge.spawn_later(0.001, b.send, b"x")
        assert selector.select() == [(key, selectors.EVENT_READ)]
        key = selector.modify(a, selectors.EVENT_READ | selectors.EVENT_WRITE)
        assert selector.select(1) == [(key, 3)]
        a.recv(1)
        assert selector.select(1) == [(key, selectors.EVENT_WRITE)]
        assert selector.get_key(a) is key is selector.get_map()[a]
        assert selector.unregister(a) is key
        assert selector.select(0) == []
        assert selector.hub is bridge.get_hub()


def test_a_selector_refuses_what_the_real_one_refuses(pipe: Pipes) -> None:
    r, _w = pipe()
    with selectors.GeventSelector() as selector:
        selector.register(r, 1)
        with pytest.raises(KeyError, match="already registered"):
            selector.register(r, 1)
        with pytest.raises(ValueError, match="Invalid events"):
            selector.register(_w, 0)
        with pytest.raises(KeyError, match="not registered"):
            selector.modify(_w, 1)
        selector.unregister(r)
        with pytest.raises(ValueError, match="Invalid file"):
            selector.register(pipe.closed(), 1)
        with pytest.raises(ValueError, match="Invalid file"):
            selector.register(selector._set._epoll.fileno(), 1)  # type: ignore[union-attr]
        assert not selector.get_map()
        closed = socket.socket()
        closed.close()
        with pytest.raises(ValueError, match="Invalid file"):
            selector.register(closed, 1)
    assert selector.get_map() is None
    selector.close()
    assert selector.select() == []


def test_registering_and_closing_concern_a_select_that_waits(pipe: Pipes) -> None:
    r, w = pipe()
    selector = selectors.GeventSelector()
    g = bridge.spawn(selector.select)
    bridge.sleep(0.005)
    key = selector.register(w, selectors.EVENT_WRITE)
    assert g.get(timeout=5) == [(key, selectors.EVENT_WRITE)]
    selector.unregister(w)
    selector.register(r, selectors.EVENT_READ)
    g = bridge.spawn(selector.select)
    bridge.sleep(0.005)
    selector.close()
    assert g.get(timeout=5) == []


def test_a_selector_takes_regular_files(tmp_path: Any, pipe: Pipes) -> None:
    with open(tmp_path / "file", "w+") as file, selectors.GeventSelector() as selector:
        key = selector.register(file, selectors.EVENT_READ)
        assert selector.select() == [(key, selectors.EVENT_READ)]
        selector.unregister(file)
        assert selector.select(0.001) == []


def test_a_selector_survives_what_it_is_not_told(pipe: Pipes) -> None:
    pipes = pipe.many(3)
    with selectors.GeventSelector() as selector:
        for r, _w in pipes:
            selector.register(r, selectors.EVENT_READ)
        g = bridge.spawn(selector.select, 0.05)
        bridge.sleep(0.001)
        pipe.close(pipes[0][0])  # must be unregistered before; but nothing breaks
        assert rounds_in(0.02) < 20
        os.write(pipes[1][1], b"x")
        assert [key.fd for key, _events in g.get(timeout=5)] == [pipes[1][0]]
        selector.unregister(pipes[0][0])


def test_a_selector_where_there_is_no_epoll(pipe: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "_new_epoll", None)
    monkeypatch.setattr(_fdset, "_new_epoll", None)
    pipes = pipe.many(10)
    with selectors.GeventSelector() as selector:
        for r, _w in pipes:
            selector.register(r, selectors.EVENT_READ)
        assert selector.select(0.001) == []
        bridge.spawn_later(0.001, os.write, pipes[3][1], b"x")
        assert [key.fd for key, _events in selector.select(5)] == [pipes[3][0]]
        selector.unregister(pipes[3][0])
        assert selector.select(0.001) == []


def test_the_selectors_module_mirrors_the_real_one() -> None:
    assert selectors.DefaultSelector is selectors.GeventSelector
    assert issubclass(selectors.GeventSelector, real_selectors.BaseSelector)
    for name in selectors.__imports__:
        assert getattr(selectors, name) is getattr(real_selectors, name)


def test_an_asyncio_loop_can_stand_on_our_selector() -> None:
    # a library's private loop in a greenlet, after patching
    def private_loop() -> list[int]:
        loop = asyncio.SelectorEventLoop(selectors.GeventSelector())
        try:
            return loop.run_until_complete(main())
        finally:
            loop.close()

    async def main() -> list[int]:
        return [await asyncio.sleep(0.01, i) for i in range(3)]

    ticks: list[int] = []

    def ticker() -> None:
        while True:
            bridge.sleep(0.002)
            ticks.append(1)

    other = bridge.spawn(ticker)
    assert bridge.spawn(private_loop).get(timeout=10) == [0, 1, 2]
    other.kill()
    assert len(ticks) > 3


# -- without epoll at all -------------------------------------------------------------------------


@pytest.fixture
def no_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "_new_epoll", None)
    monkeypatch.setattr(_fdset, "_new_epoll", None)
    monkeypatch.setattr(select, "_new_epoll", None)
    _fdset._spares.sets = None


@pytest.mark.usefixtures("no_epoll")
@pytest.mark.parametrize("size", [1, 20])
def test_the_loops_own_readers_do_where_there_is_no_epoll(pipe: Pipes, size: int, tmp_path: Any) -> None:
    pipes = pipe.many(size)
    readers = [r for r, _w in pipes]
    r, w = pipes[-1]
    assert select.select(readers, [], [], 0.001) == ([], [], [])
    assert bridge.get_hub().loop.fileno() == -1
    bridge.spawn_later(0.001, os.write, w, b"x")
    assert select.select(readers, [], []) == ([r], [], [])
    both = [bridge.spawn(wait_read, r), bridge.spawn(wait_write, w)]
    bridge.joinall(both, timeout=5)
    assert all(g.successful() for g in both)
    fill(w)
    g = bridge.spawn(wait_write, w)
    bridge.sleep(0.001)
    assert not g.ready()
    while select.select([r], [], [], 0)[0]:
        os.read(r, 65536)
    g.get(timeout=5)
    with open(tmp_path / "file", "w") as file:
        wait_write(file)
    g = bridge.spawn(lambda: pytest.raises(OSError, wait_read, r).value.errno)
    bridge.sleep(0.001)
    pipe.close(r, bridge_os.close)
    assert g.get(timeout=5) == errno.EBADF
