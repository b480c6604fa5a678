"""A port forwarder: connections to one address go on to another one.

Look for: two greenlets for each connection, one for each direction; and that SIGTERM lets the connections
that are open come to their end.

    python examples/port_forwarder.py 127.0.0.1:7000 example.org:80
"""

import signal
import sys

import bridge
from bridge.baseserver import parse_address
from bridge.server import StreamServer
from bridge.socket import SHUT_WR, create_connection


class PortForwarder(StreamServer):
    """Forwards what comes to ``listener`` to ``target``."""

    def __init__(self, listener, target, **kwargs):
        super().__init__(listener, **kwargs)
        self.target = parse_address(target)[1]

    def handle(self, source, address):
        try:
            target = create_connection(self.target)
        except OSError as e:
            print(f"{address[0]}: cannot reach {self.target}: {e}")
            return
        print(f"{address[0]} -> {self.target}", flush=True)
        with target:
            there = bridge.spawn(forward, source, target)
            forward(target, source)
            there.join()


def forward(source, target):
    """Send on what comes, to the end; then say that there is no more."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(SHUT_WR)
    except OSError:
        pass  # one of the two has gone: the other direction will find out


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} LISTEN TARGET, for instance 127.0.0.1:7000 example.org:80")
    server = PortForwarder(sys.argv[1], sys.argv[2], spawn=500)
    server.start()
    print("Forwarding from", f"{server.server_host}:{server.server_port}", flush=True)
    bridge.signal_handler(signal.SIGTERM, server.stop, timeout=60)
    server.serve_forever(stop_timeout=60)
