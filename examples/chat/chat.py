"""A chat over WebSocket, with a page for the browser.

Look for: a client is two greenlets, one that reads what the browser sends and one that sends what is in the
client's queue, so that a slow client keeps nobody waiting. pywsgi does the HTTP part, wsproto the frames
(``pip install wsproto``).

    python examples/chat/chat.py
    open http://127.0.0.1:6004/ in two windows
"""

import base64
import hashlib
import sys
from pathlib import Path

from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

import bridge
from bridge.pywsgi import WSGIServer
from bridge.queue import Full, Queue

PAGE = (Path(__file__).parent / "chat.html").read_bytes()

#: From RFC 6455.
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: A client that is so many messages behind has gone, or might as well.
MOST_UNREAD = 100

#: Nobody has more to say at once.
LONGEST = 1_000_000

#: The queues of all who are in the room.
room = set()


def say(text):
    """Send a line to everybody."""
    for queue in tuple(room):
        try:
            queue.put_nowait(TextMessage(data=text))
        except Full:
            room.discard(queue)


def application(environ, start_response):
    """The page at /, the chat at /chat."""
    path = environ["PATH_INFO"]
    if path == "/":
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [PAGE]
    if path != "/chat" or environ.get("HTTP_UPGRADE", "").lower() != "websocket":
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"not found\n"]
    # Browsers let any page connect to any server: only ours may.
    if environ.get("HTTP_ORIGIN", "").partition("://")[2] != environ.get("HTTP_HOST"):
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"wrong origin\n"]
    key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
    accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
    upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    # After a 101 the connection is ours: what is written is sent as it is.
    write = start_response("101 Switching Protocols", upgrade)
    write(b"")
    chat(environ["wsgi.input"].read1, write)
    return []


def chat(read, write):
    """Serve one client, to the end."""
    connection = Connection(ConnectionType.SERVER)
    queue = Queue(MOST_UNREAD)
    sender = bridge.spawn(send_all, queue, connection, write)
    room.add(queue)
    name, text = None, ""
    try:
        while len(text) < LONGEST:
            connection.receive_data(read(65536) or None)
            for event in connection.events():
                if isinstance(event, TextMessage):
                    text += event.data
                    if not event.message_finished:
                        continue
                    line, text = text.strip(), ""
                    if name is None:
                        name = line or "somebody"
                        say(f"* {name} has come, which makes {len(room)}")
                    elif line:
                        say(f"{name}: {line}")
                elif isinstance(event, Ping):
                    queue.put(event.response())
                elif isinstance(event, CloseConnection):
                    queue.put(event.response())
                    queue.put(None)
                    sender.join()
                    return
    except (OSError, RemoteProtocolError):
        pass  # gone without a word
    finally:
        sender.kill()
        room.discard(queue)
        if name is not None:
            say(f"* {name} has left")


def send_all(queue, connection, write):
    """Send what comes into the queue; None is the end."""
    while (event := queue.get()) is not None:
        try:
            write(connection.send(event))
        except (OSError, LocalProtocolError):
            return  # the reader will find out as well


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 6004
    server = WSGIServer(("127.0.0.1", port), application, log=None)
    server.start()
    print("Chat at", f"http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
