"""A web server over TLS.

Look for: nothing changes but the ``ssl_context``. Without a certificate the program has the ``openssl``
command make one that nobody trusts (hence curl's -k):

    python examples/wsgi_tls.py [PORT [CERTIFICATE KEY]]
    curl -k https://127.0.0.1:6443/
"""

import os
import subprocess
import sys
import tempfile

from bridge.pywsgi import WSGIServer
from bridge.ssl import PROTOCOL_TLS_SERVER, SSLContext


def application(environ, start_response):
    """Say hello."""
    if environ["PATH_INFO"] != "/":
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"not found\n"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"hello by {environ['wsgi.url_scheme']}\n".encode()]


def make_context(certificate=None, key=None):
    """The context of the server, with a certificate of one's own or one made here."""
    context = SSLContext(PROTOCOL_TLS_SERVER)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
        return context
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost"
        )
        files = ["-out", certificate, "-keyout", key]
        subprocess.run([*command.split(), *files], check=True, stderr=subprocess.DEVNULL)
        context.load_cert_chain(certificate, key)
    return context


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 6443
    context = make_context(*sys.argv[2:4])
    server = WSGIServer(("127.0.0.1", port), application, ssl_context=context)
    server.start()
    print("Web server at", f"https://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
