"""Long polling: clients ask for news, and are answered when there are some.

Look for: a waiting client costs a greenlet in ``Condition.wait`` and nothing else; there may be thousands.

    python examples/long_polling.py
    curl 'http://127.0.0.1:6003/news?after=0'          # waits
    curl -d 'it rains' http://127.0.0.1:6003/news      # in another terminal
"""

import json
import sys
from urllib.parse import parse_qs

import bridge
from bridge.event import Event
from bridge.pywsgi import WSGIServer

#: Seconds after which a client is answered though there is nothing new: proxies do not wait for ever.
PATIENCE = 30


class News:
    """A list of messages, for the end of which one can wait."""

    def __init__(self):
        self.messages = []
        self.changed = Event()

    def publish(self, message):
        """Add a message, and wake everybody who waits."""
        self.messages.append(message)
        changed, self.changed = self.changed, Event()
        changed.set()

    def after(self, number, timeout):
        """The messages after the first ``number``; waits until there are some."""
        with bridge.Timeout(timeout, False):
            while len(self.messages) <= number:
                self.changed.wait()
        return self.messages[number:]


news = News()


def application(environ, start_response):
    """GET /news?after=N and POST /news."""
    if environ["PATH_INFO"] != "/news":
        start_response("404 Not Found", [])
        return []
    if environ["REQUEST_METHOD"] == "POST":
        news.publish(environ["wsgi.input"].read().decode())
        start_response("204 No Content", [])
        return []
    after = int(parse_qs(environ["QUERY_STRING"]).get("after", ["0"])[0])
    found = news.after(after, PATIENCE)
    start_response("200 OK", [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
    return [json.dumps({"messages": found, "next": after + len(found)}).encode() + b"\n"]


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 6003
    server = WSGIServer(("127.0.0.1", port), application, log=None)
    server.start()
    print("News at", f"http://127.0.0.1:{server.server_port}/news", flush=True)
    server.serve_forever()
