"""A server at a Unix socket: only programs on this machine can reach it, those that may open the file.

Look for: an address ``unix:PATH``. The file goes when the server stops; one that a dead server has left is
replaced.

    python examples/unix_server.py /tmp/greeter
    python examples/unix_client.py /tmp/greeter Alice Bob
"""

import sys

from bridge.server import StreamServer


def greet(socket, _address):
    """Greet whose name comes in each line."""
    with socket.makefile("rw") as file:
        for name in file:
            file.write(f"Hello, {name.strip()}!\n")
            file.flush()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} PATH")
    server = StreamServer(f"unix:{sys.argv[1]}", greet)
    server.start()
    print("Listening at", server.address, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("bye")
