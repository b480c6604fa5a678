"""ZeroMQ between greenlets, by `zmq.green`, which waits with gevent's loop (pip install pyzmq).

Look for: client and server take turns.
"""
import gevent
import zmq.green as zmq

# Global Context
context = zmq.Context()

# The tutorial has port 5000, which may be in use.
server_socket = context.socket(zmq.REQ)
port = server_socket.bind_to_random_port("tcp://127.0.0.1")

def server():
    for request in range(1, 5):
        server_socket.send(b"Hello")
        print('Switched to Server for %s' % request)
        # Implicit context switch occurs here
        server_socket.recv()

def client():
    client_socket = context.socket(zmq.REP)
    client_socket.connect("tcp://127.0.0.1:%s" % port)

    for request in range(1, 5):
        client_socket.recv()
        print('Switched to Client for %s' % request)
        # Implicit context switch occurs here
        client_socket.send(b"World")

    client_socket.close()

publisher = gevent.spawn(server)
client = gevent.spawn(client)

gevent.joinall([publisher, client])
server_socket.close()
context.term()
