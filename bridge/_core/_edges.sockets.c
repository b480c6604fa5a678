/* Operations of sockets that may wait: the compiled twins of some methods of the socket of bridge._sockets and
   bridge._sockwait. See _edges.c. */

#include "_edges.parts.h"

#include <errno.h>
#include <sys/socket.h>

/* as in bridge._sockwait */
#define ANEW 1

/* An attempt to receive so many bytes keeps the GIL. */
#define LITTLE 65536
/* After a hasty attempt that was in vain a wait begins without one, after the next that is in vain three, and so on,
   at most so many: a mask. */
#define PATIENCE 15
#define BITS 4
/* Messages up to this size are better received in a buffer that is at hand, and copied, than in new memory of the size
   that was asked for, most of which is given back. */
#define SHORT 8192

static PyTypeObject *wait_class;
static Py_ssize_t socket_channel, socket_timeout;
static PyObject *hub_local, *cancelled_class, *refused_class;
static PyObject *zero;
static PyObject *name_block, *name_send_rest;
static PyObject *wait_before[1], *socket_before[4];

enum { RECV, RECV_INTO, SEND, SENDALL };

/* The file of a socket of the standard library, whose first member it is: see check_layout(). */
#define FD(socket) (*(int *)((char *)(socket) + sizeof(PyObject)))

/* What is replaced does it. */
static PyObject *
as_before(PyObject *function, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Py_ssize_t total = nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames));
    PyObject *small[8];
    PyObject **all = total < 8 ? small : PyMem_Malloc((total + 1) * sizeof(PyObject *));
    if (all == NULL) {
        return PyErr_NoMemory();
    }
    all[0] = self;
    memcpy(all + 1, args, total * sizeof(PyObject *));
    PyObject *result = PyObject_Vectorcall(function, all, nargs + 1, kwnames);
    if (all != small) {
        PyMem_Free(all);
    }
    return result;
}

/* A wait is over: take it out of its place; false: somebody else has. */
static int
withdraw(PyObject *channel, Py_ssize_t place, PyObject *wait)
{
    if (SLOT(channel, place) != wait) {
        return 0;
    }
    store(channel, place, Py_NewRef(Py_None));
    return 1;
}

/* WaitingSocket._wait_edge(); 1: waited, 0: for the method in Python, -1: an exception. */
static int
wait_edge(PyObject *self, PyObject *channel, int events, PyObject *timeout, int anew)
{
    PyObject *wait = PyObject_CallNoArgs((PyObject *)wait_class);
    if (wait == NULL) {
        return -1;
    }
    int done = 0;
    PyObject *engine = ((Wait *)wait)->engine;
    if (engine == NULL || !PyObject_TypeCheck(engine, api->engine_type)) {
        goto end; /* a portal */
    }
    Py_ssize_t place = events == READ ? channel_reader : channel_writer;
    PyObject *mask = SLOT(channel, channel_mask);
    if (SLOT(channel, place) != Py_None || mask == NULL || !(PyLong_AsLong(mask) & events)) {
        goto end; /* busy, or not registered for this */
    }
    PyObject *edges = ((Engine *)engine)->edges;
    if (edges == NULL || SLOT(channel, channel_home) != edges) {
        goto end;
    }
    if (anew) {
        done = watch_again(FD(self), channel, edges);
        if (done <= 0) {
            goto end;
        }
    }
    store(channel, place, Py_NewRef(wait));
    PyObject *woken = timeout == Py_None ? PyObject_CallMethodNoArgs(wait, name_block)
                                         : PyObject_CallMethodOneArg(wait, name_block, timeout);
    int withdrawn = withdraw(channel, place, wait);
    if (woken == NULL) {
        done = -1;
    }
    else if (!withdrawn) {
        PyObject *error = PyObject_CallNoArgs(cancelled_class);
        if (error != NULL) {
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
            Py_DECREF(error);
        }
        done = -1;
    }
    else if (woken != Py_True) {
        PyErr_SetString(PyExc_TimeoutError, "timed out");
        done = -1;
    }
    else {
        done = 1;
    }
    Py_XDECREF(woken);
end:
    Py_DECREF(wait);
    return done;
}

PyDoc_STRVAR(wait_edge_doc,
"_wait_edge($self, events, timeout, how=0, /)\n--\n\n"
"Wait until the socket becomes ready for READ or for WRITE, which it was not at the last attempt.");

static PyObject *
socket_wait_edge(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *channel = SLOT(self, socket_channel);
    if (nargs >= 2 && nargs <= 3 && channel != NULL && Py_TYPE(channel) == channel_class) {
        long events = PyLong_AsLong(args[0]);
        long how = nargs > 2 ? PyLong_AsLong(args[2]) : 0;
        if (PyErr_Occurred()) {
            return NULL;
        }
        if ((events == READ || events == WRITE) && (how == 0 || how == ANEW)) {
            Py_INCREF(channel);
            int done = wait_edge(self, channel, (int)events, args[1], how == ANEW);
            Py_DECREF(channel);
            if (done < 0) {
                return NULL;
            }
            if (done) {
                Py_RETURN_NONE;
            }
        }
    }
    return as_before(wait_before[0], self, args, nargs, NULL);
}

/* What an operation does before it tries again. `deadline` is 0 until it has waited. 0, or -1 with an exception. */
static int
wait_until(PyObject *self, PyObject *channel, int events, double *deadline)
{
    PyObject *timeout;
    if (*deadline != 0) { /* whatever the time limit of the socket is by now */
        double seconds = *deadline - monotonic();
        if (seconds <= 0) {
            PyErr_SetString(PyExc_TimeoutError, "timed out");
            return -1;
        }
        timeout = PyFloat_FromDouble(seconds);
        if (timeout == NULL) {
            return -1;
        }
    }
    else {
        timeout = SLOT(self, socket_timeout);
        timeout = Py_NewRef(timeout == NULL ? Py_None : timeout);
        if (timeout != Py_None) {
            double seconds = PyFloat_AsDouble(timeout);
            if (seconds == -1.0 && PyErr_Occurred()) {
                Py_DECREF(timeout);
                return -1;
            }
            *deadline = monotonic() + seconds;
        }
    }
    int done = wait_edge(self, channel, events, timeout, 0);
    if (done == 0) {
        PyObject *args[] = {PyLong_FromLong(events), timeout};
        PyObject *result = args[0] == NULL ? NULL : as_before(wait_before[0], self, args, 2, NULL);
        Py_XDECREF(args[0]);
        done = result == NULL ? -1 : 1;
        Py_XDECREF(result);
    }
    Py_DECREF(timeout);
    return done < 0 ? -1 : 0;
}

/* Of a socket whose operations may wait; a new reference, NULL without an exception: the method in Python decides. */
static PyObject *
channel_of(PyObject *self)
{
    PyObject *channel = SLOT(self, socket_channel), *timeout = SLOT(self, socket_timeout);
    if (channel == NULL || Py_TYPE(channel) != channel_class || timeout == NULL) {
        return NULL;
    }
    if (timeout != Py_None && !(PyFloat_CheckExact(timeout) && PyFloat_AS_DOUBLE(timeout) > 0)) {
        return NULL;
    }
    return Py_NewRef(channel);
}

/* One attempt; as recv(), but -2 with an exception of a signal handler. */
static Py_ssize_t
receive(PyObject *self, void *buffer, Py_ssize_t size)
{
    for (;;) {
        Py_ssize_t n;
        if (size <= LITTLE) {
            n = recv(FD(self), buffer, size, MSG_DONTWAIT);
        }
        else {
            int fd = FD(self);
            Py_BEGIN_ALLOW_THREADS
            n = recv(fd, buffer, size, MSG_DONTWAIT);
            Py_END_ALLOW_THREADS
        }
        if (n >= 0 || errno != EINTR) {
            return n;
        }
        if (PyErr_CheckSignals() < 0) {
            return -2;
        }
    }
}

static Py_ssize_t
transmit(PyObject *self, const void *buffer, Py_ssize_t size)
{
    for (;;) {
        int fd = FD(self);
        Py_ssize_t n;
        Py_BEGIN_ALLOW_THREADS
        n = send(fd, buffer, size, MSG_DONTWAIT);
        Py_END_ALLOW_THREADS
        if (n >= 0 || errno != EINTR) {
            return n;
        }
        if (PyErr_CheckSignals() < 0) {
            return -2;
        }
    }
}

#define WOULD_BLOCK (errno == EAGAIN || errno == EWOULDBLOCK)

/* Before a wait for something to read: whether an attempt is likely to be the quicker way to find out whether a fast
   peer has answered. As UNLESS_ALONE, but without the Wait; and if it was in vain the last time, it is for a while.
   1, 0, or -1 with an exception. */
static int
hasty(PyObject *channel)
{
    PyObject *patience = SLOT(channel, channel_patience);
    if (patience != NULL && patience != zero) {
        long left = PyLong_AsLong(patience);
        if (left & PATIENCE) {
            PyObject *less = PyLong_FromLong(left - 1);
            if (less == NULL) {
                return -1;
            }
            store(channel, channel_patience, less);
            return 0;
        }
    }
    PyObject *hub = api->hub_here(hub_local);
    PyObject *loop = hub == NULL || hub == Py_None ? hub : api->loop_of(hub);
    if (loop != hub) {
        Py_DECREF(hub);
    }
    if (loop == NULL) {
        return -1;
    }
    int yes = 0;
    if (PyObject_TypeCheck(loop, api->engine_type) && ((Engine *)loop)->turns > 0) {
        Engine *engine = (Engine *)loop;
        Py_ssize_t waiting = engine->ready == NULL ? 1 : PyObject_Size(engine->ready);
        if (waiting == 0) {
            engine->turns--;
        }
        yes = waiting < 0 ? -1 : waiting == 0;
    }
    Py_DECREF(loop);
    return yes;
}

/* A hasty attempt has been in vain, or not; 0, or -1 with an exception. */
static int
learn(PyObject *channel, int in_vain)
{
    PyObject *before = SLOT(channel, channel_patience);
    PyObject *after = zero;
    if (in_vain && before != NULL) {
        long most = PyLong_AsLong(before) >> BITS;
        most = (most << 1 | 1) & PATIENCE;
        after = PyLong_FromLong(most << BITS | most);
        if (after == NULL) {
            return -1;
        }
    }
    else {
        Py_INCREF(after);
    }
    store(channel, channel_patience, after);
    return 0;
}

/* Before an attempt to read; 1 if it is a hasty one, else 0, or -1 with an exception. */
static int
before_reading(PyObject *self, PyObject *channel, double *deadline)
{
    int quick = 0;
    if (SLOT(channel, channel_drained) == Py_True) {
        quick = hasty(channel);
        if (quick < 0) {
            return -1;
        }
        if (!quick && wait_until(self, channel, READ, deadline) < 0) {
            if (!PyErr_ExceptionMatches(refused_class)) {
                return -1;
            }
            PyErr_Clear(); /* where nothing may block, the attempt decides whether that was needed */
        }
    }
    store_flag(channel, channel_drained, SLOT(channel, channel_stream) == Py_True);
    return quick;
}

/* After an attempt to read `size` bytes: 1: it is done, 0: once more, -1: an exception. */
static int
after_reading(PyObject *self, PyObject *channel, Py_ssize_t n, Py_ssize_t size, int quick, double *deadline)
{
    int error = errno;
    int would_block = n == -1 && WOULD_BLOCK;
    if (quick && n != -2 && learn(channel, would_block) < 0) {
        return -1;
    }
    if (would_block) {
        return wait_until(self, channel, READ, deadline);
    }
    if (n <= 0 || n >= size) {
        store_flag(channel, channel_drained, 0);
    }
    if (n == -1) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return n < 0 ? -1 : 1;
}

PyDoc_STRVAR(recv_doc,
"recv($self, bufsize, flags=0, /)\n--\n\n"
"Receive up to ``bufsize`` bytes; none at the end of the connection. Blocks the greenlet.");

static PyObject *
socket_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    static char at_hand[LITTLE]; /* used under the GIL */
    Py_ssize_t size = -1;
    PyObject *channel = NULL;
    if (nargs == 1 && PyLong_CheckExact(args[0])) {
        size = PyLong_AsSsize_t(args[0]);
        if (size == -1) {
            PyErr_Clear();
        }
        else if (size > 0) {
            channel = channel_of(self);
        }
    }
    if (channel == NULL) {
        return as_before(socket_before[RECV], self, args, nargs, NULL);
    }
    PyObject *data = NULL; /* made before the attempt where much is to be expected, else after it */
    double deadline = 0;
    int done;
    do {
        Py_ssize_t n;
        int quick = before_reading(self, channel, &deadline);
        if (quick < 0) {
            done = -1;
            break;
        }
        if (size <= SHORT || (size <= LITTLE && SLOT(channel, channel_ample) != Py_True)) {
            n = receive(self, at_hand, size);
            if (n > SHORT) {
                store_flag(channel, channel_ample, 1);
            }
            if (n >= 0) {
                data = PyBytes_FromStringAndSize(at_hand, n);
                if (data == NULL) {
                    done = -1;
                    break;
                }
            }
        }
        else {
            data = PyBytes_FromStringAndSize(NULL, size);
            if (data == NULL) {
                done = -1;
                break;
            }
            n = receive(self, PyBytes_AS_STRING(data), size);
            if (n < 0) {
                int error = errno;
                Py_CLEAR(data); /* not to be kept while we wait */
                errno = error;
            }
            else {
                store_flag(channel, channel_ample, n > SHORT);
                if (n < size && _PyBytes_Resize(&data, n) < 0) {
                    done = -1;
                    break;
                }
            }
        }
        done = after_reading(self, channel, n, size, quick, &deadline);
    } while (done == 0);
    if (done < 0) {
        Py_CLEAR(data);
    }
    Py_DECREF(channel);
    return data;
}

/* A view of a buffer that has room for `size` bytes (0: for some), which is to be released; 0: it is none of these. */
static int
get_room(PyObject *buffer, Py_ssize_t size, Py_buffer *view)
{
    if (PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE) < 0) {
        PyErr_Clear();
        return 0;
    }
    if (view->len == 0 || size > view->len) {
        PyBuffer_Release(view);
        return 0;
    }
    return 1;
}

PyDoc_STRVAR(recv_into_doc,
"recv_into($self, buffer, nbytes=0, flags=0)\n--\n\n"
"Receive up to ``nbytes`` bytes (0: what fits) into ``buffer``; returns how many.\n\n"
"Blocks the greenlet.");

static PyObject *
socket_recv_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Py_ssize_t size = 0;
    PyObject *channel = NULL;
    if (kwnames == NULL && (nargs == 1 || (nargs == 2 && PyLong_CheckExact(args[1])))) {
        size = nargs == 2 ? PyLong_AsSsize_t(args[1]) : 0;
        if (size == -1) {
            PyErr_Clear();
        }
        else if (size >= 0) {
            channel = channel_of(self);
        }
    }
    if (channel == NULL) {
        return as_before(socket_before[RECV_INTO], self, args, nargs, kwnames);
    }
    double deadline = 0;
    int done;
    Py_ssize_t n = 0;
    do {
        Py_buffer view;
        /* looked at before a wait, too, but not to be held meanwhile */
        if (SLOT(channel, channel_drained) == Py_True) {
            if (!get_room(args[0], size, &view)) {
                done = 0;
                break;
            }
            PyBuffer_Release(&view);
        }
        int quick = before_reading(self, channel, &deadline);
        if (quick < 0) {
            done = -1;
            break;
        }
        if (!get_room(args[0], size, &view)) {
            store_flag(channel, channel_drained, 0);
            done = 0;
            break;
        }
        Py_ssize_t wanted = size == 0 ? view.len : size;
        n = receive(self, view.buf, wanted);
        int error = errno;
        PyBuffer_Release(&view);
        errno = error;
        done = after_reading(self, channel, n, wanted, quick, &deadline);
    } while (done == 0);
    Py_DECREF(channel);
    if (done == 0) { /* it knows the error, or receives nothing */
        return as_before(socket_before[RECV_INTO], self, args, nargs, kwnames);
    }
    return done < 0 ? NULL : PyLong_FromSsize_t(n);
}

/* The first attempt to send. 1: done, 0: for the method in Python, -1: an exception. */
static int
send_first(PyObject *self, PyObject *data, Py_ssize_t *sent, Py_ssize_t *size)
{
    PyObject *channel = channel_of(self);
    if (channel == NULL) {
        return 0;
    }
    Py_DECREF(channel);
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    *size = view.len;
    *sent = transmit(self, view.buf, view.len);
    int error = errno;
    PyBuffer_Release(&view);
    errno = error;
    if (*sent >= 0) {
        return 1;
    }
    if (*sent == -1) {
        if (WOULD_BLOCK) {
            return 0;
        }
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return -1;
}

PyDoc_STRVAR(send_doc,
"send($self, data, flags=0, timeout=...)\n--\n\n"
"Send what there is room for; returns the number of bytes, which may be less than all of ``data``.\n\n"
":param timeout: seconds, instead of the time limit of the socket; None waits for ever.\n\n"
"Blocks the greenlet.");

static PyObject *
socket_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (nargs == 1 && kwnames == NULL) {
        Py_ssize_t sent, size;
        int done = send_first(self, args[0], &sent, &size);
        if (done) {
            return done < 0 ? NULL : PyLong_FromSsize_t(sent);
        }
    }
    return as_before(socket_before[SEND], self, args, nargs, kwnames);
}

PyDoc_STRVAR(sendall_doc,
"sendall($self, data, flags=0)\n--\n\n"
"Send all of ``data``. After an error nobody knows how much has been sent.\n\n"
"The time limit of the socket is for the whole. A socket with a limit of 0 raises BlockingIOError when\n"
"there is no more room. Blocks the greenlet.");

static PyObject *
socket_sendall(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (nargs == 1 && kwnames == NULL) {
        Py_ssize_t sent = 0, size = 0;
        int done = send_first(self, args[0], &sent, &size);
        if (done < 0) {
            return NULL;
        }
        if (done && sent >= size) {
            Py_RETURN_NONE;
        }
        if (done) {
            PyObject *numbers[] = {PyLong_FromSsize_t(sent), PyLong_FromSsize_t(size), PyLong_FromLong(0)};
            PyObject *result = NULL;
            if (numbers[0] != NULL && numbers[1] != NULL && numbers[2] != NULL) {
                result = PyObject_CallMethodObjArgs(
                    self, name_send_rest, args[0], numbers[0], numbers[1], numbers[2], NULL);
            }
            for (int i = 0; i < 3; i++) {
                Py_XDECREF(numbers[i]);
            }
            return result;
        }
    }
    return as_before(socket_before[SENDALL], self, args, nargs, kwnames);
}

static PyMethodDef wait_methods[] = {
    {"_wait_edge", (PyCFunction)(void (*)(void))socket_wait_edge, METH_FASTCALL, wait_edge_doc},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef socket_methods[] = {
    {"recv", (PyCFunction)(void (*)(void))socket_recv, METH_FASTCALL, recv_doc},
    {"recv_into", (PyCFunction)(void (*)(void))socket_recv_into, METH_FASTCALL | METH_KEYWORDS, recv_into_doc},
    {"send", (PyCFunction)(void (*)(void))socket_send, METH_FASTCALL | METH_KEYWORDS, send_doc},
    {"sendall", (PyCFunction)(void (*)(void))socket_sendall, METH_FASTCALL | METH_KEYWORDS, sendall_doc},
    {NULL, NULL, 0, NULL},
};

/* Whether the first member of a socket of the standard library is the number of its file, and -1 once it is closed. */
static int
check_layout(PyTypeObject *type)
{
    if (type->tp_basicsize < (Py_ssize_t)(sizeof(PyObject) + sizeof(int))) {
        return 0;
    }
    PyObject *made[2] = {PyObject_CallNoArgs((PyObject *)type), NULL};
    made[1] = made[0] == NULL ? NULL : PyObject_CallNoArgs((PyObject *)type);
    int same = 0;
    if (made[1] != NULL) {
        same = 1;
        for (int i = 0; i < 2 && same > 0; i++) {
            PyObject *number = PyObject_CallMethod(made[i], "fileno", NULL);
            same = number == NULL ? -1 : FD(made[i]) == PyLong_AsLong(number);
            Py_XDECREF(number);
        }
        for (int i = 0; i < 2 && same >= 0; i++) {
            PyObject *closed = PyObject_CallMethod(made[i], "close", NULL);
            same = closed == NULL ? -1 : same && FD(made[i]) == -1;
            Py_XDECREF(closed);
        }
    }
    Py_XDECREF(made[0]);
    Py_XDECREF(made[1]);
    if (PyErr_Occurred()) {
        PyErr_Clear(); /* there are no sockets here, or no descriptors left */
        return 0;
    }
    return same;
}

const char use_sockets_doc[] = PyDoc_STR(
"use_sockets(socket_class, waiting_class, wait_class, hub_local, cancelled_class, refused_class, plain_class, /)\n"
"--\n\n"
"Called once, by bridge._sockets, after use_edges(): the class of cooperative sockets, its base, the class of waits,\n"
"where hubs are found, cancel_wait_ex, BlockingSwitchOutError, and the class of sockets that is written in C.\n"
"TypeError if these do not look as expected.");

PyObject *
use_sockets(PyObject *module, PyObject *args)
{
    PyTypeObject *sockets, *waiting, *wait, *plain;
    PyObject *local, *cancelled, *refused;
    if (!PyArg_ParseTuple(args, "O!O!O!OOOO!:use_sockets", &PyType_Type, &sockets, &PyType_Type, &waiting,
                          &PyType_Type, &wait, &local, &cancelled, &refused, &PyType_Type, &plain)) {
        return NULL;
    }
    if (channel_class == NULL || !PyType_IsSubtype(wait, api->wait_type) || Py_TYPE(local) != api->hub_local_type
        || !PyType_IsSubtype(sockets, waiting) || !PyType_IsSubtype(waiting, plain) || !check_layout(plain)) {
        PyErr_SetString(PyExc_TypeError, "these are not the classes that were expected");
        return NULL;
    }
    const Place of_socket[] = {
        {&socket_channel, "_channel"},
        {&socket_timeout, "_timeout"},
        {NULL, NULL},
    };
    if (find_places(waiting, of_socket) < 0) {
        return NULL;
    }
    Py_XSETREF(wait_class, (PyTypeObject *)Py_NewRef(wait));
    Py_XSETREF(hub_local, Py_NewRef(local));
    Py_XSETREF(cancelled_class, Py_NewRef(cancelled));
    Py_XSETREF(refused_class, Py_NewRef(refused));
    if (replace(waiting, wait_methods, wait_before) < 0 || replace(sockets, socket_methods, socket_before) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

int
prepare_sockets(void)
{
    if (intern(&name_block, "block") < 0 || intern(&name_send_rest, "_send_rest") < 0) {
        return -1;
    }
    return zero == NULL && (zero = PyLong_FromLong(0)) == NULL ? -1 : 0;
}
