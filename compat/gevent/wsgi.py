"""The WSGI server that gevent had on libevent's HTTP; then, until 1.2, the name for :mod:`gevent.pywsgi`."""

from __future__ import annotations

from gevent.pywsgi import WSGIHandler, WSGIServer

__all__ = ["WSGIHandler", "WSGIServer"]
