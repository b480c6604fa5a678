/* What each message over a socket goes through: the compiled twins of some methods of bridge._core.edges.Edges, and of
   the socket of bridge._sockets and bridge._sockwait, where the theory is.

   The classes stay what they are; the methods here replace those of the same name and work on the same slots. What is
   frequent is done here, and everything else (unusual arguments, portals, a socket that is not registered yet, time
   limits of zero, the rest of a long sendall) by the methods that were replaced.

   The GIL is not given up for an attempt to receive little: it cannot block, and takes a microsecond, whereas to get
   the GIL back may take as long as sys.getswitchinterval() where another thread computes. To send, and to look at the
   epoll instance, gives it up, however short that is: without these the other threads would wait that long for their
   turn where greenlets always find something to do. */

#include "_compiled.h"
#include "_switching.h"

#include <errno.h>
#include <math.h>
#include <sys/socket.h>
#include <time.h>
#ifdef __linux__
#include <sys/epoll.h>
#endif

/* as in bridge._core.edges and bridge._sockwait */
#define READ 1
#define WRITE 2
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

static SwitchingAPI *api;

/* Where the attributes are kept that are slots. */
static Py_ssize_t channel_drained, channel_stream, channel_reader, channel_writer, channel_home, channel_mask,
    channel_ref, channel_ample, channel_patience;

static PyTypeObject *channel_class;
static PyObject *name_arm, *name_edges, *name_block;

#define SLOT(object, offset) (*(PyObject **)((char *)(object) + (offset)))

/* Store in a slot. Takes over the reference. */
static void
store(PyObject *object, Py_ssize_t offset, PyObject *value)
{
    PyObject *before = SLOT(object, offset);
    SLOT(object, offset) = value;
    Py_XDECREF(before);
}

static void
store_flag(PyObject *object, Py_ssize_t offset, int value)
{
    store(object, offset, Py_NewRef(value ? Py_True : Py_False));
}

typedef struct {
    Py_ssize_t *offset;
    const char *name;
} Place;

static int
find_places(PyTypeObject *type, const Place *places)
{
    for (; places->offset != NULL; places++) {
        if (find_slot(type, places->name, T_OBJECT_EX, places->offset) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Put twins in the place of methods of a class; what was there is kept in `before`, if it is not NULL. */
static int
replace(PyTypeObject *type, PyMethodDef *methods, PyObject **before)
{
    for (int i = 0; methods[i].ml_name != NULL; i++) {
        if (before != NULL) {
            PyObject *old = PyObject_GetAttrString((PyObject *)type, methods[i].ml_name);
            if (old == NULL) {
                return -1;
            }
            Py_XSETREF(before[i], old);
        }
        PyObject *method = PyDescr_NewMethod(type, &methods[i]);
        if (method == NULL) {
            return -1;
        }
        int failed = PyObject_SetAttrString((PyObject *)type, methods[i].ml_name, method);
        Py_DECREF(method);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

static double
now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- edges -------------------------------------------------------------------------------------------------- */

#ifdef __linux__

#define AT_ONCE 1023

static Py_ssize_t edges_channels, edges_found, edges_last, edges_loop_calls, edges_loop_fd, edges_number;
static PyTypeObject *edges_class;
static PyObject *name_asked, *name_asked_before, *name_handle_error, *name_call;

static PyObject *
unset(void)
{
    PyErr_SetString(PyExc_AttributeError, "an attribute is not set");
    return NULL;
}

/* One event; 0, or -1 with an exception. */
static int
report(PyObject *self, PyObject *channels, int fd, uint32_t events)
{
    PyObject *key = PyLong_FromLong(fd);
    if (key == NULL) {
        return -1;
    }
    PyObject *channel = PyDict_GetItemWithError(channels, key);
    Py_DECREF(key);
    if (channel == NULL || Py_TYPE(channel) != channel_class) {
        if (PyErr_Occurred()) {
            return -1;
        }
        PyObject *loop_fd = SLOT(self, edges_loop_fd);
        if (channel == NULL && loop_fd != NULL && fd == PyLong_AsLong(loop_fd)) {
            store_flag(self, edges_loop_calls, 1);
        }
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_INCREF(channel);
    int failed = 0;
    if (events & ~(EPOLLIN | EPOLLOUT)) {
        store_flag(channel, channel_stream, 0);
    }
    if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        PyObject *writer = Py_XNewRef(SLOT(channel, channel_writer));
        if (writer != NULL && writer != Py_None) {
            failed = api->wake(writer);
        }
        Py_XDECREF(writer);
    }
    if (!failed && events & (EPOLLIN | EPOLLERR | EPOLLHUP | EPOLLRDHUP)) {
        store_flag(channel, channel_drained, 0);
        PyObject *reader = Py_XNewRef(SLOT(channel, channel_reader));
        if (reader != NULL && reader != Py_None) {
            failed = api->wake(reader);
        }
        Py_XDECREF(reader);
    }
    Py_DECREF(channel);
    return failed;
}

/* Wait for events, as select.epoll.poll() does; how many, or -1 with an exception. */
static int
wait_for_events(int fd, struct epoll_event *events, double timeout)
{
    double deadline = timeout > 0 ? now() + timeout : 0;
    for (;;) {
        int ms = timeout < 0 ? -1 : timeout == 0 ? 0 : timeout > 2e6 ? 2000000000 : (int)ceil(timeout * 1e3);
        int n;
        Py_BEGIN_ALLOW_THREADS
        errno = 0;
        n = epoll_wait(fd, events, AT_ONCE, ms);
        Py_END_ALLOW_THREADS
        if (n >= 0) {
            return n;
        }
        if (errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
        if (timeout > 0) {
            timeout = deadline - now();
            if (timeout < 0) {
                timeout = 0;
            }
        }
    }
}

/* 0, or -1 with an exception */
static int
look(PyObject *self, Engine *engine, double timeout)
{
    PyObject *number = SLOT(self, edges_number);
    PyObject *channels = SLOT(self, edges_channels);
    PyObject *ready = engine->ready;
    if (number == NULL || channels == NULL || ready == NULL) {
        unset();
        return -1;
    }
    long fd = PyLong_AsLong(number);
    if (fd < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "I/O operation on closed epoll object");
        }
        return -1;
    }
    struct epoll_event events[AT_ONCE];
    int n = wait_for_events((int)fd, events, timeout);
    if (n < 0) {
        return -1;
    }
    if (timeout != 0) {
        engine->armed = 1; /* whoever it was that woke us, a drain is under way */
    }
    PyObject *found = PyLong_FromLong(n);
    if (found == NULL) {
        return -1;
    }
    store(self, edges_found, found);
    int failed = 0;
    Py_INCREF(channels);
    Py_INCREF(ready);
    for (int i = 0; i < n && !failed; i++) {
        failed = report(self, channels, events[i].data.fd, events[i].events);
    }
    if (!failed && !engine->armed) {
        Py_ssize_t waiting = PyObject_Size(ready);
        failed = waiting < 0 || (waiting > 0 && done_with(PyObject_CallMethodNoArgs((PyObject *)engine, name_arm)) < 0);
    }
    Py_DECREF(channels);
    Py_DECREF(ready);
    return failed ? -1 : 0;
}

PyDoc_STRVAR(look_doc,
"look($self, engine, timeout=0)\n--\n\n"
"Put those into the ready queue who wait for what has happened. By the loop, or in a drain.");

static PyObject *
edges_look(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 2 || !PyObject_TypeCheck(args[0], api->engine_type)) {
        PyErr_SetString(PyExc_TypeError, "look() takes an engine and a number of seconds");
        return NULL;
    }
    double timeout = nargs > 1 ? PyFloat_AsDouble(args[1]) : 0;
    if (PyErr_Occurred() || look(self, (Engine *)args[0], timeout) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Whether an attribute is False. 1, 0, or -1 with an exception. */
static int
is_false(Engine *engine, PyObject *name)
{
    PyObject *value = PyObject_GetAttr((PyObject *)engine, name);
    return done_with(value) < 0 ? -1 : value == Py_False;
}

static int
is_empty(PyObject *hooks)
{
    return hooks != NULL && PyList_CheckExact(hooks) && PyList_GET_SIZE(hooks) == 0;
}

/* The same question as Engine._may_doze(), which sees to the rarer cases. 1, 0, or -1 with an exception. */
static int
may_doze(PyObject *self, Engine *engine)
{
    PyObject *loop_fd = SLOT(self, edges_loop_fd), *last = SLOT(self, edges_last), *channels = SLOT(self, edges_channels);
    if (loop_fd == NULL || last == NULL || channels == NULL || SLOT(self, edges_loop_calls) != Py_False
        || PyLong_AsLong(loop_fd) < 0) {
        return PyErr_Occurred() ? -1 : 0;
    }
    /* is somebody waiting? where there was one the last time */
    PyObject *channel = PyDict_GetItemWithError(channels, last);
    if (channel == NULL || Py_TYPE(channel) != channel_class || SLOT(channel, channel_ref) != Py_True
        || (SLOT(channel, channel_reader) == Py_None && SLOT(channel, channel_writer) == Py_None)) {
        return PyErr_Occurred() ? -1 : 0;
    }
    if (engine->shared || !engine->owned || engine->stopping || engine->on_idle != Py_None || !is_empty(engine->before)
        || !is_empty(engine->after)) {
        return 0;
    }
    int may = is_false(engine, name_asked);
    return may <= 0 ? may : is_false(engine, name_asked_before);
}

/* Seconds until the earliest timer, -1 if there is none, 0 if this is for Engine._doze(); -2 with an exception. */
static double
until_timer(Engine *engine)
{
    double left = 0;
    PyObject *heap = engine->heap;
    if (heap != NULL && PyList_CheckExact(heap)) {
        if (PyList_GET_SIZE(heap) == 0) {
            left = -1;
        }
        else {
            PyObject *first = PyList_GET_ITEM(heap, 0);
            if (PyList_CheckExact(first) && PyList_GET_SIZE(first) > 2 && PyList_GET_ITEM(first, 2) != Py_None) {
                double when = PyFloat_AsDouble(PyList_GET_ITEM(first, 0));
                if (when == -1.0 && PyErr_Occurred()) {
                    left = -2;
                }
                else {
                    left = when - now();
                    if (left < 0) {
                        left = 0;
                    }
                }
            }
        }
    }
    return left;
}

/* Somebody's signal handler has raised in our sleep: handle an Exception; 0, or -1 if it is to go on. */
static int
handle_raised(Engine *engine)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    PyErr_NormalizeException(&type, &value, &tb);
    engine->armed = 1;
    PyObject *result = NULL;
    PyObject *handler = PyObject_GetAttr((PyObject *)engine, name_handle_error);
    if (handler != NULL) {
        result = PyObject_CallMethodObjArgs(
            (PyObject *)engine, name_call, handler, Py_None, type, value, tb == NULL ? Py_None : tb, NULL);
        Py_DECREF(handler);
    }
    Py_DECREF(type);
    Py_DECREF(value);
    Py_XDECREF(tb);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

PyDoc_STRVAR(look_again_doc,
"look_again($self, engine)\n--\n\n"
"Look, unless there was not much to find the last time, and sleep if that is certainly right; true if there is work\n"
"now.");

static PyObject *
edges_look_again(PyObject *self, PyObject *arg)
{
    PyObject *found = SLOT(self, edges_found);
    if (!PyObject_TypeCheck(arg, api->engine_type)) {
        PyErr_SetString(PyExc_TypeError, "look_again() takes an engine");
        return NULL;
    }
    Engine *engine = (Engine *)arg;
    PyObject *ready = engine->ready;
    if (found == NULL || ready == NULL) {
        return unset();
    }
    long n = PyLong_AsLong(found);
    if ((n == -1 && PyErr_Occurred()) || (n > 1 && look(self, engine, 0) < 0)) {
        return NULL;
    }
    Py_ssize_t waiting = PyObject_Size(ready);
    if (waiting == 0) {
        int may = may_doze(self, engine);
        double left = may > 0 ? until_timer(engine) : 0;
        if (may < 0 || left < -1) {
            return NULL;
        }
        if (may && left != 0) {
            engine->armed = 0;
            waiting = PyObject_Size(ready); /* see "Armed" in bridge._core.engine */
            if (waiting == 0) {
                if (look(self, engine, left) < 0 && handle_raised(engine) < 0) {
                    return NULL;
                }
                waiting = PyObject_Size(ready);
            }
            engine->armed = 1;
        }
    }
    if (waiting < 0) {
        return NULL;
    }
    return PyBool_FromLong(waiting > 0);
}

static PyMethodDef edges_methods[] = {
    {"look", (PyCFunction)(void (*)(void))edges_look, METH_FASTCALL, look_doc},
    {"look_again", (PyCFunction)edges_look_again, METH_O, look_again_doc},
    {NULL, NULL, 0, NULL},
};

#endif

/* ---- sockets ------------------------------------------------------------------------------------------------ */

static PyTypeObject *wait_class;
static Py_ssize_t socket_channel, socket_timeout;
static PyObject *hub_local, *cancelled_class, *refused_class;
static PyObject *zero;
static PyObject *name_send_rest;
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

#ifdef __linux__

/* Edges.watch() of a channel that is registered there: have the kernel look anew. 1, 0 (for the method in Python), or -1
   with an exception. */
static int
watch_again(PyObject *self, PyObject *channel, PyObject *edges)
{
    if (Py_TYPE(edges) != edges_class) {
        return 0;
    }
    PyObject *number = SLOT(edges, edges_number), *channels = SLOT(edges, edges_channels);
    if (number == NULL || channels == NULL) {
        return 0;
    }
    PyObject *key = PyLong_FromLong(FD(self));
    if (key == NULL) {
        return -1;
    }
    PyObject *present = PyDict_GetItemWithError(channels, key);
    Py_DECREF(key);
    if (present != channel) {
        return PyErr_Occurred() ? -1 : 0;
    }
    long mask = PyLong_AsLong(SLOT(channel, channel_mask));
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLPRI | (uint32_t)EPOLLET | (mask & READ ? EPOLLIN : 0)
                                    | (mask & WRITE ? EPOLLOUT : 0)};
    event.data.fd = FD(self);
    return epoll_ctl((int)PyLong_AsLong(number), EPOLL_CTL_MOD, FD(self), &event) == 0;
}

#else
#define watch_again(self, channel, edges) 0
#endif

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
    PyObject *edges = PyObject_GetAttr(engine, name_edges);
    if (edges == NULL) {
        done = -1;
        goto end;
    }
    Py_DECREF(edges); /* the engine has it */
    if (SLOT(channel, channel_home) != edges) {
        goto end;
    }
    if (anew) {
        done = watch_again(self, channel, edges);
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
    PyObject *timeout = SLOT(self, socket_timeout);
    if (timeout == NULL || timeout == Py_None) {
        timeout = Py_NewRef(Py_None);
    }
    else {
        double seconds = PyFloat_AsDouble(timeout);
        if (seconds == -1.0 && PyErr_Occurred()) {
            return -1;
        }
        if (*deadline == 0) {
            *deadline = now() + seconds;
            Py_INCREF(timeout);
        }
        else {
            seconds = *deadline - now();
            if (seconds <= 0) {
                PyErr_SetString(PyExc_TimeoutError, "timed out");
                return -1;
            }
            timeout = PyFloat_FromDouble(seconds);
            if (timeout == NULL) {
                return -1;
            }
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

/* ---- the module --------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(use_edges_doc,
"use_edges(edges_class, channel_class, /)\n--\n\n"
"Called once, by bridge._core.edges.");

static PyObject *
use_edges(PyObject *module, PyObject *args)
{
    PyTypeObject *edges, *channel;
    if (!PyArg_ParseTuple(args, "O!O!:use_edges", &PyType_Type, &edges, &PyType_Type, &channel)) {
        return NULL;
    }
    const Place of_channel[] = {
        {&channel_drained, "drained"},
        {&channel_stream, "stream"},
        {&channel_ample, "ample"},
        {&channel_patience, "patience"},
        {&channel_reader, "reader"},
        {&channel_writer, "writer"},
        {&channel_home, "home"},
        {&channel_mask, "mask"},
        {&channel_ref, "ref"},
        {NULL, NULL},
    };
    if (find_places(channel, of_channel) < 0) {
        return NULL;
    }
#ifdef __linux__
    const Place of_edges[] = {
        {&edges_channels, "channels"},
        {&edges_found, "_found"},
        {&edges_last, "_last"},
        {&edges_number, "_number"},
        {&edges_loop_calls, "loop_calls"},
        {&edges_loop_fd, "loop_fd"},
        {NULL, NULL},
    };
    if (find_places(edges, of_edges) < 0 || replace(edges, edges_methods, NULL) < 0) {
        return NULL;
    }
    Py_XSETREF(edges_class, (PyTypeObject *)Py_NewRef(edges));
#endif
    Py_XSETREF(channel_class, (PyTypeObject *)Py_NewRef(channel));
    Py_RETURN_NONE;
}

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

PyDoc_STRVAR(use_sockets_doc,
"use_sockets(socket_class, waiting_class, wait_class, hub_local, cancelled_class, refused_class, plain_class, /)\n--\n\n"
"Called once, by bridge._sockets, after use_edges(): the class of cooperative sockets, its base, the class of waits,\n"
"where hubs are found, cancel_wait_ex, BlockingSwitchOutError, and the class of sockets that is written in C. TypeError if these do not\n"
"look as expected.");

static PyObject *
use_sockets(PyObject *module, PyObject *args)
{
    PyTypeObject *sockets, *waiting, *wait, *plain;
    PyObject *local, *cancelled, *refused;
    if (!PyArg_ParseTuple(args, "O!O!O!OOOO!:use_sockets", &PyType_Type, &sockets, &PyType_Type, &waiting,
                          &PyType_Type, &wait, &local, &cancelled, &refused, &PyType_Type, &plain)) {
        return NULL;
    }
    if (channel_class == NULL || !PyType_IsSubtype(wait, api->wait_type) || Py_TYPE(local) != api->hub_local_type || !PyType_IsSubtype(sockets, waiting)
        || !PyType_IsSubtype(waiting, plain) || !check_layout(plain)) {
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

static PyMethodDef module_methods[] = {
    {"use_edges", use_edges, METH_VARARGS, use_edges_doc},
    {"use_sockets", use_sockets, METH_VARARGS, use_sockets_doc},
    {NULL, NULL, 0, NULL},
};

static int
execute(PyObject *module)
{
    api = import_switching();
    if (api == NULL) {
        return -1;
    }
    if (intern(&name_arm, "arm") < 0 || intern(&name_edges, "edges") < 0 || intern(&name_block, "block") < 0
        || intern(&name_send_rest, "_send_rest") < 0) {
        return -1;
    }
    if (zero == NULL && (zero = PyLong_FromLong(0)) == NULL) {
        return -1;
    }
#ifdef __linux__
    if (intern(&name_asked, "_asked") < 0 || intern(&name_asked_before, "_asked_before") < 0
        || intern(&name_handle_error, "handle_error") < 0 || intern(&name_call, "call") < 0) {
        return -1;
    }
#endif
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bridge._core._edges",
    .m_doc = "What each message over a socket goes through, compiled.",
    .m_size = 0,
    .m_methods = module_methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__edges(void)
{
    return PyModuleDef_Init(&definition);
}
