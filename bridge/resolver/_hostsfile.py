"""The hosts file: ``/etc/hosts``, or what the system has in its place."""

from __future__ import annotations

import _socket
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["HostsEntry", "HostsFile"]

_DEFAULT = "/etc/hosts"
if sys.platform == "win32":
    _DEFAULT = os.path.expandvars(r"%SystemRoot%\System32\drivers\etc\hosts")


class HostsEntry(NamedTuple):
    """A line of the file."""

    family: int
    address: str
    #: the official name
    name: str
    aliases: tuple[str, ...]


class HostsFile:
    """What is written in a hosts file; it is read again when it has changed.

    :param fname: its path, by default the system's.

    A file that is not there is empty. Reading it blocks the thread, for a very short time.
    """

    def __init__(self, fname: str | None = None) -> None:
        self.fname = _DEFAULT if fname is None else fname
        self._stamp: tuple[int, int] | None = None
        self._entries: list[HostsEntry] = []
        self._by_name: dict[str, list[HostsEntry]] = {}
        self._by_address: dict[tuple[int, str], HostsEntry] = {}

    def load(self) -> None:
        """Read the file if it has changed."""
        try:
            found = os.stat(self.fname)
            stamp = (found.st_mtime_ns, found.st_size)
        except OSError:
            stamp = None
        if stamp is not None and stamp == self._stamp:
            return
        self._entries = []
        self._by_name = {}
        self._by_address = {}
        if stamp is not None:
            try:
                with open(self.fname, encoding="utf-8", errors="surrogateescape") as lines:
                    for line in lines:
                        self._add(line)
            except OSError:
                stamp = None  # not for us to read: as if it were not there
        self._stamp = stamp

    def _add(self, line: str) -> None:
        words = line.partition("#")[0].split()
        if len(words) < 2:
            return
        address, name, *aliases = words
        try:
            found = _socket.getaddrinfo(
                address, None, 0, _socket.SOCK_STREAM, 0, getattr(_socket, "AI_NUMERICHOST", 4)
            )
        except (OSError, UnicodeError):
            return
        entry = HostsEntry(found[0][0], address, name, tuple(aliases))
        self._entries.append(entry)
        for each in {word.lower() for word in words[1:]}:
            self._by_name.setdefault(each, []).append(entry)
        self._by_address.setdefault((entry.family, str(found[0][4][0])), entry)

    def find(self, name: str, families: tuple[int, ...]) -> list[HostsEntry]:
        """The entries with that name, or alias, and with addresses of one of the families."""
        self.load()
        return [entry for entry in self._by_name.get(name.lower(), ()) if entry.family in families]

    def knows(self, name: str) -> bool:
        """Whether the name occurs, with an address of whatever family."""
        self.load()
        return name.lower() in self._by_name

    def find_name(self, family: int, address: str) -> HostsEntry | None:
        """The first entry with that address, which is to be in the form that ``getaddrinfo()`` gives."""
        self.load()
        return self._by_address.get((family, address))

    def iter_all_host_addr_pairs(self) -> Iterator[tuple[str, str]]:
        """Pairs of name and address, for all names and aliases."""
        self.load()
        for entry in self._entries:
            for name in (entry.name, *entry.aliases):
                yield name, entry.address
