"""A class that listens on many sockets, one greenlet of a Pool for each.

Look for: the eleventh handler is refused, and `shutdown` ends all ten.
"""
import gevent
from gevent.pool import Pool
from gevent.queue import Queue

class SocketPool(object):

    def __init__(self):
        # The tutorial calls self.pool.start() here; a pool needs no start.
        self.pool = Pool(10)

    def listen(self, socket):
        while True:
            socket.recv()

    def add_handler(self, socket):
        if self.pool.full():
            raise Exception("At maximum pool size")
        else:
            self.pool.spawn(self.listen, socket)

    def shutdown(self):
        self.pool.kill()

# The tutorial stops here; from here on the class is put to use.

class Line(object):
    """Stands in for a socket: `recv` waits for a message and prints it."""

    def __init__(self):
        self.messages = Queue()

    def send(self, message):
        self.messages.put(message)

    def recv(self):
        print('Received %s' % self.messages.get())

lines = [Line() for i in range(11)]
sockets = SocketPool()
for line in lines[:10]:
    sockets.add_handler(line)

try:
    sockets.add_handler(lines[10])
except Exception as e:
    print(e)

lines[0].send('hello')
lines[9].send('goodbye')
gevent.sleep(0)

print('Handlers: %s' % len(sockets.pool))
sockets.shutdown()
print('Handlers: %s' % len(sockets.pool))
