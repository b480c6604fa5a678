"""A client of unix_server.py: sends names, prints the greetings.

Look for: a file made of a socket, to read and to write lines.

    python examples/unix_client.py /tmp/greeter Alice Bob
"""

import sys

from bridge import socket


def main(path, names):
    """Ask for all greetings on one connection."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        with sock.makefile("rw") as file:
            for name in names:
                file.write(name + "\n")
                file.flush()
                print(file.readline(), end="")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} PATH NAME...")
    main(sys.argv[1], sys.argv[2:])
