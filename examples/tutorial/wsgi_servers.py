"""The two names of the WSGI server: `gevent.wsgi` of gevent 1.0, and `gevent.pywsgi`, which streams.

Access them with `curl -v http://127.0.0.1:8000/` and `curl -v http://127.0.0.1:8001/`, or other ports given
as arguments. Look for: "Hello World", in one piece with its length, and in two (Transfer-Encoding: chunked).
"""
import sys
import gevent
from gevent import pywsgi, wsgi

def application(environ, start_response):
    status = '200 OK'
    body = '<p>Hello World</p>'

    headers = [
        ('Content-Type', 'text/html')
    ]

    start_response(status, headers)
    return [body.encode()]

def streaming_application(environ, start_response):
    status = '200 OK'

    headers = [
        ('Content-Type', 'text/html')
    ]

    start_response(status, headers)
    yield b"<p>Hello"
    yield b" World</p>"

ports = [int(port) for port in sys.argv[1:3]] or [8000, 8001]
servers = [
    wsgi.WSGIServer(('127.0.0.1', ports[0]), application, log=None),
    pywsgi.WSGIServer(('127.0.0.1', ports[1]), streaming_application, log=None),
]
for server in servers:
    server.start()
    print('listening on port %d' % server.server_port, flush=True)
gevent.wait()
