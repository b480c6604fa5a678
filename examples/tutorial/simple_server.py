"""A StreamServer: each connection has a greenlet of its own.

Access it with `nc 127.0.0.1 5000`, or another port given as argument. Look for: the text, then five digits.
"""
import sys
from gevent.server import StreamServer

def handle(socket, address):
    socket.sendall(b"Hello from a telnet!\n")
    for i in range(5):
        socket.sendall(b"%d\n" % i)
    socket.close()

port = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
server = StreamServer(('127.0.0.1', port), handle)
server.start()
print('listening on port %d' % server.server_port, flush=True)
server.serve_forever()
