"""A UDP server: answers each message with its length.

Look for: a handler gets messages, not connections; ``sendto`` of the server answers.

    python examples/udp_server.py
    python examples/udp_client.py hello
"""

import sys

from bridge.server import DatagramServer


class LengthServer(DatagramServer):
    """Says how long messages are."""

    def handle(self, data, address):
        print(f"{address[0]}: got {data!r}", flush=True)
        self.sendto(f"Received {len(data)} bytes".encode(), address)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 6002
    server = LengthServer(("127.0.0.1", port))
    server.start()
    print("UDP server at", f"127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
