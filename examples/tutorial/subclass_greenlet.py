"""A subclass of Greenlet that overrides `_run`.

Look for: the message appears at once, the program ends 0.3 seconds later.
"""
import gevent
from gevent import Greenlet

class MyGreenlet(Greenlet):

    def __init__(self, message, n):
        Greenlet.__init__(self)
        self.message = message
        self.n = n

    def _run(self):
        print(self.message)
        gevent.sleep(self.n)

g = MyGreenlet("Hi there!", 0.3)
g.start()
g.join()
