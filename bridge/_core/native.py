"""Functions of the system as they were when bridge was imported, for modules that are imported later.

Monkey patching replaces these names where they come from. What is imported with the engine takes them from
there itself.
"""

from __future__ import annotations

from _thread import RLock, start_new_thread
from _thread import get_ident as get_thread_ident
from time import sleep as thread_sleep

__all__ = ["RLock", "get_thread_ident", "start_new_thread", "thread_sleep"]
