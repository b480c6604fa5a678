"""How a handler sends an answer."""

from __future__ import annotations

import time
from typing import Any

from .._sockets import socket
from ._logs import cached_http_date
from ._response import (
    CODING,
    CONNECTION,
    DATE,
    LENGTH,
    FileWrapper,
    encode_header,
    encode_status,
    known_headers,
)
from ._state import HandlerState

__all__ = ["Answering"]

#: Up to this size blocks are joined with what is before them, to be sent by one call.
_JOIN = 128 * 1024


class Answering(HandlerState):
    """The part of :class:`WSGIHandler` that sends what the application gives it."""

    def process_result(self) -> None:
        """Send what the application has returned, in ``result``."""
        result = self.result
        if hasattr(result, "__len__") and not self.headers_sent:
            data = result[0] if type(result) is list and len(result) == 1 else b"".join(result)
            if data or self.status:
                self._whole = len(data)
                self.write(data)
        else:
            if type(result) is FileWrapper and self._send_file(result):
                return
            write = self.write
            for data in result:
                if data:
                    write(data)
                    if self._head_only and self.headers_sent:
                        break  # the rest would be made for nobody, and may have no end
            if self.status and not self.headers_sent:
                write(b"")
        if self.response_use_chunked and not self._head_only:
            self._sendall(b"0\r\n\r\n")

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        """Set status and headers of the answer; they are sent with the first data. Returns :meth:`write`.

        As WSGI has it. May be called again before anything has been sent; with ``exc_info``, that is raised
        if it is too late. ValueError for what would not be one status line and one header each.
        """
        if exc_info:
            try:
                if self.headers_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # its traceback refers to this frame
        encoded, code = encode_status(status)
        if code < 200 and code != 101:
            raise ValueError(f"start_response({status!r}): not the status of an answer")
        date = length = None
        lines = []
        coded = False
        for header in headers:
            known = known_headers(header) if type(header) is tuple else None
            if known is None:
                name, value = header
                known = encode_header(name, value)
            name, data, kind = known
            if kind:
                value = header[1]
                if kind == LENGTH:
                    length = value
                elif kind == DATE:
                    date = value
                elif kind == CODING:
                    # how the answer is framed is not for the application to say (PEP 3333): it would be said
                    # twice
                    coded = True
                    continue
                elif kind == CONNECTION and "close" in value.lower():
                    self.close_connection = True
            lines.append((name, data))
        if length is not None:
            if coded:
                length = None
                lines = [line for line in lines if line[0].lower() != b"content-length"]
            elif (code == 304 or code == 204) and length != "0":
                message = f"Invalid Content-Length for {code} response: {length!r} (must be absent or zero)"
                raise self.ApplicationError(message.encode("latin-1"))  # bytes, as in gevent
            elif not (length.isdigit() and length.isascii()):
                raise ValueError(f"start_response(): invalid Content-Length {length!r}")
        # from here on nothing can fail
        self.status = encoded
        self._orig_status = status
        self.code = code
        self.response_headers = lines
        self.provided_date = date
        self.provided_content_length = length
        return self.write

    def write(self, data: Any) -> None:
        """Send a block of the body, before the first one the head."""
        if data:
            if self.code == 304 or self.code == 204:
                raise self.ApplicationError(f"The {self.code} response must have no body")
            if type(data) is not bytes:
                data = _as_bytes(data)  # while there is time for an error page
        if self.headers_sent:
            self._write(data)
        elif not self.status:
            raise self.ApplicationError("The application did not call start_response()")
        else:
            self._write_with_headers(data)

    def finalize_headers(self) -> None:
        """Add what the application has left out: Date, Connection, and how long the body is."""
        headers = self.response_headers
        self._provided = len(headers)
        if self.provided_date is None:
            headers.append((b"Date", cached_http_date(time.time())))
        code = self.code
        self._length = None
        if code == 101:
            self.connection_upgraded = True
            return
        provided = self.provided_content_length
        if provided is not None:
            # (False is what a subclass says that frames the body itself)
            if provided is not False:
                self._length = int(provided)
        elif code == 304 or code == 204:
            pass
        elif self._whole is not None:
            self._length = self._whole
            headers.append((b"Content-Length", b"%d" % self._whole))
        elif self.request_version == "HTTP/1.1":
            self.response_use_chunked = True
            headers.append((b"Transfer-Encoding", b"chunked"))
        else:
            self.close_connection = True  # it is the end of the connection that ends the body
        if self.close_connection:
            self._add_connection(b"close")
        elif self.request_version == "HTTP/1.0":
            self._add_connection(b"keep-alive")

    def _add_connection(self, value: bytes) -> None:
        headers = self.response_headers
        for i, (name, said) in enumerate(headers):
            if name.lower() == b"connection":
                said = said.lower()
                if b"close" in said or said == value:
                    return
                if said == b"keep-alive":
                    headers[i] = (name, value)
                    return
        headers.insert(self._provided, (b"Connection", value))  # where gevent has it

    def _write_with_headers(self, data: Any) -> None:
        self.finalize_headers()
        lines = [b"HTTP/1.1 " + self.status]
        lines += [b"%b: %b" % header for header in self.response_headers]
        lines.append(b"\r\n")
        head = b"\r\n".join(lines)
        if self.wsgi_input is not None:
            self.wsgi_input.send_100_continue_enabled = False  # what would come now is the body
        self.headers_sent = True
        self._write(data, head)

    def _write(self, data: Any, before: bytes = b"") -> None:
        """Send a block, after what is to go out ``before`` it."""
        size = len(data)
        if not size or self._head_only:
            if before:
                self._sendall(before)
            return
        if self._length is not None:
            written = self._written + size
            if written > self._length:
                self._write_too_much(data, before)
            self._written = written
        elif self.response_use_chunked:
            if size <= _JOIN:
                self._sendall(b"%b%x\r\n%b\r\n" % (before, size, data))
            else:
                self._sendall(b"%b%x\r\n" % (before, size))
                self._sendall(data)
                self._sendall(b"\r\n")
            return
        if before and size > _JOIN:
            self._sendall(before)
            self._sendall(data)
        else:
            self._sendall(before + data)

    def _write_too_much(self, data: bytes, before: bytes) -> None:
        # the client would take the rest for the next answer
        assert self._length is not None
        fits = data[: self._length - self._written]
        self._written = self._length
        self._sendall(before + fits)
        raise self.ApplicationError(
            f"The application has written more than its Content-Length, which is {self._length}"
        )

    def _sendall(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as e:
            self._socket_error = e
            self.status = f"socket error: {e}"
            self.close_connection = True
            raise
        self.response_length += len(data)

    def _send_file(self, wrapper: FileWrapper) -> bool:
        """Have the kernel send a file; False if it has to be read."""
        if self.headers_sent or not self.status or self.code in (101, 204, 304):
            return False
        if type(self.socket) is not socket and not self._head_only:
            return False
        rest = wrapper._rest()
        if rest is None:
            return False
        offset, size = rest
        provided = self.provided_content_length
        if provided is None:
            self._whole = size
        else:
            size = min(size, int(provided))
        self._write_with_headers(b"")
        if size and not self._head_only:
            try:
                sent = self.socket.sendfile(wrapper.filelike, offset, size)
            except OSError as e:
                self._socket_error = e
                self.close_connection = True
                raise
            self.response_length += sent
            self._written += sent
        return True


def _as_bytes(data: Any) -> bytes:
    """A block that is no bytes object, but like one; TypeError if not."""
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    try:
        return bytes(memoryview(data))
    except TypeError:
        raise TypeError(
            f"the application's body must consist of bytes, not of {type(data).__name__}; encode text: "
            "text.encode()"
        ) from None
