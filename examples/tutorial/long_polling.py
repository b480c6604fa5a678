"""Long polling: an answer that goes on, a line for each thing that happens.

Access it with `curl -N http://127.0.0.1:8000/`, or another port given as argument. Look for: "Hello World"
again and again, as it is produced.
"""
import sys
import gevent
from gevent.queue import Queue, Empty
from gevent.pywsgi import WSGIServer
import json

data_source = Queue()

def producer():
    while True:
        data_source.put_nowait('Hello World')
        gevent.sleep(0.1)

def ajax_endpoint(environ, start_response):
    status = '200 OK'
    headers = [
        ('Content-Type', 'application/json')
    ]

    start_response(status, headers)

    while True:
        try:
            datum = data_source.get(timeout=5)
            yield (json.dumps(datum) + '\n').encode()
        except Empty:
            pass

port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
gevent.spawn(producer)
server = WSGIServer(('127.0.0.1', port), ajax_endpoint, log=None)
server.start()
print('listening on port %d' % server.server_port, flush=True)
server.serve_forever()
