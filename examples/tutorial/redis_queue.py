"""redis-py, which knows nothing of greenlets, cooperates after `patch_all` (pip install redis; redis-server).

Look for: the workers wait in the server at the same time, and each task is done once.
"""
from gevent import monkey
monkey.patch_all()

import os
import tempfile
import gevent
from gevent.subprocess import Popen, DEVNULL
import redis

folder = tempfile.TemporaryDirectory()
path = os.path.join(folder.name, 'socket')
server = Popen(['redis-server', '--port', '0', '--unixsocket', path, '--save', ''], stdout=DEVNULL)
r = redis.Redis(unix_socket_path=path, decode_responses=True)

while True:
    try:
        r.ping()
        break
    except redis.ConnectionError:
        # it has not begun to listen
        if server.poll() is not None:
            raise
        gevent.sleep(0.01)

def worker(name):
    while True:
        _queue, task = r.blpop(['tasks'])
        if task == 'quit':
            return
        r.rpush('done', task)
        r.sadd('workers', name)

def boss():
    for i in range(9):
        r.rpush('tasks', i)
        gevent.sleep(0.01)
    r.rpush('tasks', *['quit'] * 3)

try:
    gevent.joinall([
        gevent.spawn(worker, 'steve'),
        gevent.spawn(worker, 'john'),
        gevent.spawn(worker, 'nancy'),
        gevent.spawn(boss),
    ], raise_error=True)
    print('Done: %s' % ', '.join(sorted(r.lrange('done', 0, -1))))
    print('By: %s' % ', '.join(sorted(r.smembers('workers'))))
finally:
    server.terminate()
    server.wait()
    folder.cleanup()
