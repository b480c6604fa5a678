"""An echo server: sends back every line, to many clients at a time.

Look for: the handler is straight-line code, and blocks nobody but its own connection. Start it, then talk to
it from two terminals:

    python examples/echo_server.py
    telnet 127.0.0.1 6000
"""

import sys

from bridge.server import StreamServer


def echo(socket, address):
    """Serve one connection; a greenlet of its own runs this."""
    print("connected:", address[0])
    socket.sendall(b"Welcome to the echo server! Type quit to exit.\r\n")
    with socket.makefile("rb") as lines:
        for line in lines:
            if line.strip().lower() == b"quit":
                break
            socket.sendall(line)
    print("disconnected:", address[0])


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
    # a pool of 1000: the 1001st client waits until somebody leaves
    server = StreamServer(("127.0.0.1", port), echo, spawn=1000)
    server.start()
    print("Echo server listens at", f"{server.server_host}:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("bye")
