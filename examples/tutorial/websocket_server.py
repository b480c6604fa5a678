"""Flask for pages, gevent-websocket for /websocket, on pywsgi; what is sent is kept in redis.

Needs `pip install flask redis gevent-websocket` and a redis-server. Run it with
`python -m bridge examples/tutorial/websocket_server.py [PORT [REDIS_PORT]]` and open http://127.0.0.1:5000/.
Look for: each message comes back with its number, to everybody who is connected.
"""
from gevent import monkey
monkey.patch_all()

import sys
from flask import Flask
from gevent.pywsgi import WSGIServer
from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.handler import WebSocketHandler
import redis

PAGE = """<!doctype html><title>gevent</title><input id=i autofocus><pre id=o></pre><script>
const ws = new WebSocket(`ws://${location.host}/websocket`);
ws.onmessage = event => { o.textContent += event.data + "\\n"; };
i.onchange = () => { ws.send(i.value); i.value = ""; };
</script>"""

clients = set()

def handle_websocket(ws, r):
    clients.add(ws)
    try:
        while True:
            message = ws.receive()
            if message is None:
                break
            text = '%d: %s' % (r.rpush('messages', message), message)
            for client in list(clients):
                client.send(text)
    except WebSocketError:
        pass  # it has gone
    finally:
        clients.discard(ws)

def create_app(r):
    app = Flask(__name__)

    @app.route('/')
    def page():
        return PAGE

    @app.route('/messages')
    def messages():
        return r.lrange('messages', 0, -1)

    return app

def manage(port=5000, redis_port=6379):
    r = redis.Redis(port=redis_port, decode_responses=True)
    app = create_app(r)

    def wsgi_app(environ, start_response):
        if environ['PATH_INFO'] == '/websocket':
            handle_websocket(environ['wsgi.websocket'], r)
            return []
        return app(environ, start_response)

    http_server = WSGIServer(('127.0.0.1', port), wsgi_app, handler_class=WebSocketHandler, log=None)
    http_server.start()
    print('----Server run at 127.0.0.1:%s-----' % http_server.server_port, flush=True)
    print('----Redis Server run at 127.0.0.1:%s-----' % redis_port, flush=True)
    http_server.serve_forever()

if __name__ == '__main__':
    manage(*map(int, sys.argv[1:]))
