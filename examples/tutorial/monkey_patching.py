"""Monkey patching: names of the standard library stand for functions and classes that cooperate.

Look for: the class of sockets and the function select, each before and after.
"""
import socket
print(socket.socket)

print("After monkey patch")
from gevent import monkey
monkey.patch_socket()
print(socket.socket)

import select
print(select.select)
monkey.patch_select()
print("After monkey patch")
print(select.select)
