"""An AsyncResult: an Event that carries a value.

Look for: the waiter prints what the setter sets 0.3 seconds later.
"""
import gevent
from gevent.event import AsyncResult

a = AsyncResult()

def setter():
    gevent.sleep(0.3)
    a.set('Hello!')

def waiter():
    print(a.get())

gevent.joinall([
    gevent.spawn(setter),
    gevent.spawn(waiter),
])
