"""Classes for the environ of a request that do not show secrets when they are printed."""

from __future__ import annotations

from collections.abc import Container, ItemsView
from typing import Any

__all__ = ["Environ", "SecureEnviron", "WSGISecureEnviron"]

#: The settings of a SecureEnviron, each with the attribute of its class that has the default.
_SETTINGS = {
    "secure_repr": "default_secure_repr",
    "whitelist_keys": "default_whitelist_keys",
    "print_masked_keys": "default_print_masked_keys",
}


class Environ(dict[str, Any]):
    """A dictionary for WSGI environs, to be subclassed. A copy is of the same class; pickled it is a dict."""

    __module__ = __package__
    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def copy(self) -> Any:
        """A shallow copy, of the same class."""
        return type(self)(self)

    def iteritems(self) -> ItemsView[str, Any]:
        """As ``items()``."""
        return self.items()

    def __reduce_ex__(self, protocol: Any) -> Any:
        # who unpickles it need not have this class, nor be asked to print secrets
        return (dict, (), None, None, iter(self.items()))


class SecureEnviron(Environ):
    """An environ that does not show what is in it: cookies and passwords do not belong in logs.

    Each instance has these settings, and their defaults can be changed in a subclass:

    - ``secure_repr`` (``default_secure_repr``): False to be printed like a plain dictionary;
    - ``whitelist_keys`` (``default_whitelist_keys``): the keys that may be shown with their values;
    - ``print_masked_keys`` (``default_print_masked_keys``): whether the names of the other keys are shown, if
      there are keys in the white list.
    """

    __module__ = __package__
    __slots__ = ("print_masked_keys", "secure_repr", "whitelist_keys")

    default_secure_repr: bool = True
    default_whitelist_keys: Container[str] = ()
    default_print_masked_keys: bool = True

    secure_repr: bool
    whitelist_keys: Container[str]
    print_masked_keys: bool

    def __getattr__(self, name: str) -> Any:
        # a setting that this instance does not have
        try:
            default = _SETTINGS[name]
        except KeyError:
            raise AttributeError(name) from None
        return getattr(type(self), default)

    def __repr__(self) -> str:
        if not self.secure_repr:
            return super().__repr__()
        shown = self.whitelist_keys
        if not shown:
            return f"<pywsgi.{type(self).__name__} dict (keys: {len(self)}) at {id(self)}>"
        if self.print_masked_keys:
            return repr({k: v if k in shown else "<MASKED>" for k, v in self.items()})
        visible = {k: v for k, v in self.items() if k in shown}
        hidden = len(self) - len(visible)
        text = repr(visible)
        return f"{text[:-1]}, (hidden keys: {hidden})}}" if hidden else text

    __str__ = __repr__


class WSGISecureEnviron(SecureEnviron):
    """As :class:`SecureEnviron`; shows who the client is and which host was asked, and nothing else."""

    __module__ = __package__

    default_whitelist_keys = ("REMOTE_ADDR", "REMOTE_PORT", "HTTP_HOST")
    default_print_masked_keys = False
