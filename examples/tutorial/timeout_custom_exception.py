"""`with Timeout(seconds, TooLong)` raises an exception class of one's own.

Look for: nobody catches it, so the program ends with the traceback of TooLong and status 1.
"""
import gevent
from gevent import Timeout

time_to_wait = 0.05 # seconds

class TooLong(Exception):
    pass

with Timeout(time_to_wait, TooLong):
    gevent.sleep(0.1)
