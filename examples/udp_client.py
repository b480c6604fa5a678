"""A UDP client: sends a message to udp_server.py and waits for the answer, but not for ever.

Look for: messages get lost, so there is a time limit, and it tries three times.

    python examples/udp_client.py hello [PORT]
"""

import sys

import bridge
from bridge import socket


def ask(message, address, tries=3):
    """The answer to a message, None if there is none."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        for _ in range(tries):
            sock.send(message)
            try:
                with bridge.Timeout(1):
                    return sock.recv(8192)
            except bridge.Timeout:
                print("no answer, trying again")
            except ConnectionRefusedError:
                break  # the machine is there, and says that nobody listens
    return None


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} MESSAGE [PORT]")
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 6002
    answer = ask(sys.argv[1].encode(), ("127.0.0.1", port))
    if answer is None:
        sys.exit("nobody answers; is udp_server.py running?")
    print(answer.decode())
