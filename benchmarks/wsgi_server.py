"""The measured process of `wsgi.py`: an application, written against `import gevent`. Argument: the case.

gunicorn imports it for `Chosen`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

StartResponse = Callable[..., Any]
BODY = b"x" * 16384
BLOCKS = [b"x" * 1024] * 10


def hello(_environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "14")])
    return [b"Hello, world!\n"]


def body(_environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]


def echo(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    data = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
    return [data]


def stream(_environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter(BLOCKS)


def cpu(_environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """CPU seconds of this process up to now."""
    start_response("200 OK", [])
    return [repr(time.process_time()).encode()]


APPLICATIONS = {"hello": hello, "nodelay": hello, "body": body, "echo": echo, "stream": stream}


class Chosen:
    """The application of a case, which also tells how much CPU time it has used."""

    def __init__(self, case: str) -> None:
        self.application = APPLICATIONS[case]

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/cpu":
            return cpu(environ, start_response)
        return self.application(environ, start_response)


def main() -> None:
    from gevent import pywsgi, socket  # gunicorn's master is not to import it

    case = sys.argv[1]
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if case != "nodelay":
        # inherited by connections; else delayed acknowledgements are what is measured with gevent
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    print(listener.getsockname()[1], flush=True)
    pywsgi.WSGIServer(listener, Chosen(case), log=None).serve_forever()


if __name__ == "__main__":
    main()
