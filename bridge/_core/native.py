"""Functions of the system as they were when bridge was imported, for modules that are imported later.

Monkey patching replaces these names where they come from. What is imported with the engine takes them from
there itself.
"""

from __future__ import annotations

from _thread import get_ident as get_thread_ident
from _thread import start_new_thread
from time import sleep as thread_sleep

__all__ = ["get_thread_ident", "start_new_thread", "thread_sleep"]
