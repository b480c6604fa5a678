"""A Pool of two greenlets maps a function over three values.

Look for: never more than two at a time; the third runs when there is room.
"""
from gevent.pool import Pool

pool = Pool(2)

def hello_from(n):
    print('Size of pool %s' % len(pool))

pool.map(hello_from, range(3))
