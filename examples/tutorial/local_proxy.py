"""Flask's `request`: werkzeug's LocalProxy over a `local`, in a WSGI server (needs werkzeug).

Access it with `curl http://127.0.0.1:8000/`, or another port given as argument. Look for: your own address;
of several requests under way at once each sees its own `request`.
"""
import sys
import gevent
from gevent.local import local
from werkzeug.local import LocalProxy
from werkzeug.wrappers import Request
from contextlib import contextmanager

from gevent.wsgi import WSGIServer

_requests = local()
request = LocalProxy(lambda: _requests.request)

@contextmanager
def sessionmanager(environ):
    _requests.request = Request(environ)
    yield
    _requests.request = None

def logic():
    gevent.sleep(0.1) # lets another request begin
    return "Hello " + request.remote_addr

def application(environ, start_response):
    status = '200 OK'

    with sessionmanager(environ):
        body = logic()

    headers = [
        ('Content-Type', 'text/html')
    ]

    start_response(status, headers)
    return [body.encode()]

port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
server = WSGIServer(('127.0.0.1', port), application, log=None)
server.start()
print('listening on port %d' % server.server_port, flush=True)
server.serve_forever()
