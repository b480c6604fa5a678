"""FastAPI with a legacy client that blocks.

Look for: Legacy is what such clients are, a class with a socket and a lock. It is not touched. The first view
calls it in a greenlet, the second is a portal and calls it directly; either way the server goes on meanwhile.

    python examples/fastapi_legacy_client.py          # then open http://127.0.0.1:8000/greenlet/hello
"""

import sys

import uvicorn
from fastapi import FastAPI

import bridge
from bridge import socket  # the twin of the standard library's: it blocks the greenlet, or the portal
from bridge.lock import RLock
from bridge.server import StreamServer


class Legacy:
    """One connection, for all threads: one at a time."""

    def __init__(self, address):
        self.address = address
        self.lock = RLock()
        self.file = None

    def ask(self, question):
        with self.lock:
            if self.file is None:
                self.file = socket.create_connection(self.address).makefile("rw")
            self.file.write(question + "\n")
            self.file.flush()
            return self.file.readline().strip()


def backend(connection, _address):
    """The old server that the client talks to."""
    with connection.makefile("rw") as lines:
        for line in lines:
            bridge.sleep(0.01)
            lines.write(line.upper())
            lines.flush()


app = FastAPI()


def client():
    """The client, made at the first use: it needs its backend."""
    if not hasattr(app.state, "client"):
        server = StreamServer(("127.0.0.1", 0), backend)
        server.start()
        app.state.client = Legacy(("127.0.0.1", server.server_port))
    return app.state.client


@app.get("/greenlet/{question}")
async def in_greenlet(question: str):
    return {"answer": await bridge.sync_to_async(client().ask)(question)}


@app.get("/portal/{question}")
@bridge.portal
async def in_portal(question: str):
    return {"answer": client().ask(question)}


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
