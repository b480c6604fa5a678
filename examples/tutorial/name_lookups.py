"""Names of hosts are looked up at the same time; `GEVENT_RESOLVER=ares` (or `dnspython`) asks in another way.

Look for: the addresses, in the order of the names; those that don't come in time are None.
"""
import sys
import gevent
from gevent import socket

# The tutorial asks for www.google.com and others; give names as arguments to ask for them.
names = sys.argv[1:] or ['localhost', '127.0.0.1', '127.1']

jobs = [gevent.spawn(socket.gethostbyname, name) for name in names]
gevent.joinall(jobs, timeout=5)

for name, job in zip(names, jobs):
    print('%s: %s' % (name, job.value))
