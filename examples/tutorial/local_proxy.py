"""Flask's `request`: werkzeug's LocalProxy over a `local` (needs werkzeug; here without a server).

Look for: two requests are under way at once, and each sees its own `request`.
"""
import gevent
from gevent.local import local
from werkzeug.local import LocalProxy
from werkzeug.test import create_environ
from werkzeug.wrappers import Request
from contextlib import contextmanager

_requests = local()
request = LocalProxy(lambda: _requests.request)

@contextmanager
def sessionmanager(environ):
    _requests.request = Request(environ)
    yield
    _requests.request = None

def logic():
    gevent.sleep(0) # lets the other request begin
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

# In the place of the tutorial's WSGIServer(('', 8000), application).serve_forever():

def visit(address):
    environ = create_environ(environ_base={'REMOTE_ADDR': address})
    body = application(environ, lambda status, headers: print(status))
    print(b''.join(body).decode())

gevent.joinall([
    gevent.spawn(visit, '10.0.0.1'),
    gevent.spawn(visit, '10.0.0.2'),
])
