"""A Timeout that is started by hand, around waiting for a greenlet.

Look for: the timeout was started before the sleep of the same length, so it comes first.
"""
import gevent
from gevent import Timeout

seconds = 0.1

timeout = Timeout(seconds)
timeout.start()

def wait():
    gevent.sleep(0.1)

try:
    gevent.spawn(wait).join()
except Timeout:
    print('Could not complete')
