"""A web proxy: fetches other people's pages, many at a time, with the blocking standard library.

Look for: ``urllib.request`` knows nothing of greenlets. After ``patch_all()`` it does not need to.

    python examples/web_proxy.py
    curl -x http://127.0.0.1:6001 http://example.org/
"""

from bridge import monkey  # isort: skip

monkey.patch_all()

import sys  # noqa: E402
import urllib.error  # noqa: E402
import urllib.request  # noqa: E402

from bridge.pywsgi import WSGIServer  # noqa: E402

#: What a proxy must not pass on: these are about one connection only.
HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te",
    "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def proxy(environ, start_response):
    """Fetch what is asked for, and pass it on as it comes."""
    method = environ["REQUEST_METHOD"]
    if method == "CONNECT":
        start_response("501 Not Implemented", [("Content-Type", "text/plain")])
        return [b"This proxy fetches http:// pages only.\n"]
    url = f"http://{environ['HTTP_HOST']}{environ['PATH_INFO']}"
    if environ["QUERY_STRING"]:
        url += "?" + environ["QUERY_STRING"]
    headers = {
        key[5:].replace("_", "-").title(): value
        for key, value in environ.items()
        if key.startswith("HTTP_") and key[5:].replace("_", "-").lower() not in HOP_BY_HOP
    }
    body = environ["wsgi.input"].read() or None
    if body is not None and "CONTENT_TYPE" in environ:
        headers["Content-Type"] = environ["CONTENT_TYPE"]
    print(method, url, flush=True)
    try:
        answer = opener.open(urllib.request.Request(url, body, headers, method=method))
    except urllib.error.HTTPError as e:
        answer = e  # an answer all the same
    except OSError as e:
        start_response("502 Bad Gateway", [("Content-Type", "text/plain")])
        return [f"{url}: {e}\n".encode()]
    passed_on = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP]
    start_response(f"{answer.status} {answer.reason}", passed_on)
    return parts(answer)


def parts(answer):
    with answer:
        while data := answer.read1(65536):
            yield data


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 6001
    server = WSGIServer(("127.0.0.1", port), proxy, log=None)
    server.start()
    print("Web proxy at", f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
