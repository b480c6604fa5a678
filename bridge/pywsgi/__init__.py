"""A WSGI server for HTTP/1.1; twin of :mod:`gevent.pywsgi`.

    from bridge.pywsgi import WSGIServer

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    WSGIServer(("", 8000), application).serve_forever()

:class:`WSGIServer` accepts connections; a :class:`WSGIHandler` for each of them serves its requests, in a
greenlet.
"""

from __future__ import annotations

from ..server import StreamServer as StreamServer
from ._environ import Environ, SecureEnviron, WSGISecureEnviron
from ._errors import _InvalidClientInput as _InvalidClientInput
from ._errors import _InvalidClientRequest as _InvalidClientRequest
from ._handler import (  # noqa: F401
    _BAD_REQUEST_BODY,
    _BAD_REQUEST_HEADERS,
    _BAD_REQUEST_RESPONSE,
    _BAD_REQUEST_STATUS,
    _ERRORS,
    _INTERNAL_ERROR_BODY,
    _INTERNAL_ERROR_HEADERS,
    _INTERNAL_ERROR_STATUS,
    _REQUEST_TOO_LONG_RESPONSE,
    WSGIHandler,
)
from ._input import _ALLOWED_TOKEN_CHARS as _ALLOWED_TOKEN_CHARS
from ._input import _CONTINUE_RESPONSE as _CONTINUE_RESPONSE
from ._input import _HEX as _HEX
from ._input import MAX_REQUEST_LINE as MAX_REQUEST_LINE
from ._input import Input as Input
from ._logs import _MONTHNAME as _MONTHNAME
from ._logs import _WEEKDAYNAME as _WEEKDAYNAME
from ._logs import LoggingLogAdapter
from ._logs import _NoopLog as _NoopLog
from ._logs import format_date_time as format_date_time
from ._message import OldMessage as OldMessage
from ._message import headers_factory as headers_factory
from ._response import FileWrapper as FileWrapper
from ._server import WSGIServer

__all__ = ["Environ", "LoggingLogAdapter", "SecureEnviron", "WSGIHandler", "WSGISecureEnviron", "WSGIServer"]
