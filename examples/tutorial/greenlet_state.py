"""What a greenlet tells of itself before it starts, once started, and at its end.

Look for: an exception stays inside its greenlet (stderr shows its traceback) and is kept in `exception`.
"""
import gevent
from gevent import Greenlet

def win():
    return 'won'

def fail():
    raise ValueError('lost')

def show(when):
    print('%s:' % when)
    for name, g in ('winner', winner), ('loser', loser):
        print('  %s started=%s ready=%s successful=%s value=%r exception=%r'
              % (name, g.started, g.ready(), g.successful(), g.value, g.exception))

winner = Greenlet(win)
loser = Greenlet(fail)
show('Made')

winner.start()
loser.start()
show('Started')

gevent.joinall([winner, loser])
show('Ended')
