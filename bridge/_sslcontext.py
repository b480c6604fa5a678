"""The context whose sockets are cooperative.

Theory of operation
===================

*Replacing the class by its subclass.* Functions of the standard SSLContext refer to their class by the
name it has in the module ``ssl``: ``super(SSLContext, SSLContext).options.__set__(self, value)``. When that
name has come to mean ours, they find the property of the standard class, which is where they are: an endless
recursion, for contexts made before and for those made after. So between the two there is a class whose
attributes of those names are the descriptors of the C class, that is what they are looking for.
"""

from __future__ import annotations

import _ssl as _c_ssl
import ssl as __ssl__
from typing import Any

__all__ = ["SSLContext", "orig_SSLContext"]

_CContext: Any = _c_ssl._SSLContext

#: The standard class; monkey patching replaces it in the module.
orig_SSLContext = __ssl__.SSLContext

#: The properties of the standard class that hide an attribute of the C class.
_properties = {
    name: value
    for name, value in vars(orig_SSLContext).items()
    if isinstance(value, property) and hasattr(_CContext, name)
}


class _Bare(orig_SSLContext):
    """Where ``super(SSLContext, SSLContext)`` finds the attributes of the C class."""


class SSLContext(_Bare):
    """``ssl.SSLContext`` whose sockets block only the greenlet that uses them."""

    __module__ = f"{__package__}.ssl"
    # sslsocket_class is assigned where the class of the sockets is defined


for _name, _property in _properties.items():
    setattr(_Bare, _name, getattr(_CContext, _name))
    setattr(SSLContext, _name, _property)
del _name, _property
