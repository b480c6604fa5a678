"""What is wrong with a request."""

from __future__ import annotations

__all__ = ["BadRequest", "BodyTooLarge", "BodyTooSlow", "_InvalidClientInput", "_InvalidClientRequest"]


class _InvalidClientInput(OSError):
    """The client has sent a body that is not framed as HTTP demands."""

    #: to be answered, if nothing has been yet
    status = 400


class BodyTooLarge(_InvalidClientInput):
    """The body is longer than the server allows."""

    status = 413


class BodyTooSlow(_InvalidClientInput):
    """The client has not sent the body in time."""

    status = 408


class _InvalidClientRequest(ValueError):
    """The client has sent something that is not a request that can be served."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.formatted_message = message


class BadRequest(_InvalidClientRequest):
    """To be answered with ``status``, after which the connection is closed."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
