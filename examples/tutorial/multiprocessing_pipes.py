"""Another process relays messages; `wait_read` and `wait_write` keep the pipes from blocking greenlets.

Look for: five messages come back through the other process, in order.
"""
import gevent
from multiprocessing import get_context, Pipe
from gevent.socket import wait_read, wait_write

# To Process
a, b = Pipe()

# From Process
c, d = Pipe()

def relay():
    for i in range(5):
        msg = b.recv()
        c.send(msg + " in " + str(i))

def put_msg():
    for i in range(5):
        wait_write(a.fileno())
        a.send('hi')

def get_msg():
    for i in range(5):
        wait_read(d.fileno())
        print(d.recv())

if __name__ == '__main__':
    # Only a forked process has the same pipes; Python 3.14 does not fork unless asked to.
    proc = get_context('fork').Process(target=relay)
    proc.start()

    g1 = gevent.spawn(get_msg)
    g2 = gevent.spawn(put_msg)
    gevent.joinall([g1, g2], timeout=10)
