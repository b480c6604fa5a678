/* What each message over a socket goes through: the compiled twins of some methods of bridge._core.edges.Edges, where
   the theory is, and in _edges.sockets.c those of sockets.

   The classes stay what they are; the methods here replace those of the same name and work on the same slots. What is
   frequent is done here, and everything else (unusual arguments, portals, a socket that is not registered yet, time
   limits of zero, the rest of a long sendall) by the methods that were replaced.

   The GIL is not given up for an attempt to receive little: it cannot block, and takes a microsecond, whereas to get
   the GIL back may take as long as sys.getswitchinterval() where another thread computes. To send, and to look at the
   epoll instance, gives it up, however short that is: without these the other threads would wait that long for their
   turn where greenlets always find something to do. */

#include "_edges.parts.h"

#include <errno.h>
#include <math.h>
#ifdef __linux__
#include <sys/epoll.h>
#endif

SwitchingAPI *api;

Py_ssize_t channel_drained, channel_stream, channel_reader, channel_writer, channel_home, channel_mask, channel_ref,
    channel_ample, channel_patience;

PyTypeObject *channel_class;

int
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

#ifdef __linux__

#define AT_ONCE 1023

static Py_ssize_t edges_channels, edges_found, edges_last, edges_loop_calls, edges_loop_fd, edges_number;
static PyTypeObject *edges_class;
static PyObject *name_arm, *name_handle_error, *name_call, *gettrace;

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

/* Wait for events, as select.epoll.poll() does; how many, or -1 with an exception. If `interrupted` is not NULL, a
   signal ends the wait and is noted there. */
static int
wait_for_events(PyObject *self, struct epoll_event *events, double timeout, char *interrupted)
{
    double deadline = timeout > 0 ? monotonic() + timeout : 0;
    for (;;) {
        int ms = timeout < 0 ? -1 : timeout < 2e6 ? (int)ceil(timeout * 1e3) : 2000000000; /* NaN is for ever */
        PyObject *number = SLOT(self, edges_number); /* handlers of signals may have closed it */
        if (number == NULL) {
            unset();
            return -1;
        }
        int n, fd = (int)PyLong_AsLong(number);
        if (fd < 0) {
            if (!PyErr_Occurred()) {
                PyErr_SetString(PyExc_ValueError, "I/O operation on closed epoll object");
            }
            return -1;
        }
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
        if (interrupted != NULL) {
            *interrupted = 1;
            return 0;
        }
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
        if (timeout > 0) {
            timeout = deadline - monotonic();
            if (timeout < 0) {
                timeout = 0;
            }
        }
    }
}

/* 0, or -1 with an exception. For `interrupted` see above. */
static int
look(PyObject *self, Engine *engine, double timeout, char *interrupted)
{
    PyObject *channels = SLOT(self, edges_channels);
    PyObject *ready = engine->ready;
    if (channels == NULL || ready == NULL) {
        unset();
        return -1;
    }
    struct epoll_event events[AT_ONCE];
    Py_INCREF(channels);
    Py_INCREF(ready);
    int n = wait_for_events(self, events, timeout, interrupted);
    if (timeout != 0) {
        engine->armed = 1; /* whoever it was that woke us, a drain is under way */
    }
    PyObject *type = NULL, *value, *tb;
    for (int i = 0; i < n; i++) {
        /* The kernel tells each edge once: one error, which may have been one of memory, must not keep the others from
           being reported, nor, if it can be helped, that one. */
        for (int more = 2; more > 0 && report(self, channels, events[i].data.fd, events[i].events) < 0; more--) {
            if (type == NULL) {
                PyErr_Fetch(&type, &value, &tb);
            }
            PyErr_Clear();
        }
    }
    int failed = n < 0;
    if (!failed) {
        PyObject *found = PyLong_FromLong(n);
        if (found != NULL) {
            store(self, edges_found, found);
        }
        failed = found == NULL;
    }
    if (!failed && !engine->armed) { /* also after an error: the others have been woken */
        Py_ssize_t waiting = PyObject_Size(ready);
        failed = waiting < 0 || (waiting > 0 && done_with(PyObject_CallMethodNoArgs((PyObject *)engine, name_arm)) < 0);
    }
    if (type != NULL) {
        PyErr_Clear();
        PyErr_Restore(type, value, tb);
        failed = 1;
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
    if (PyErr_Occurred() || look(self, (Engine *)args[0], timeout, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
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
    PyObject *loop_fd = SLOT(self, edges_loop_fd), *last = SLOT(self, edges_last);
    PyObject *channels = SLOT(self, edges_channels);
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
    return !engine->asked && !engine->asked_before;
}

/* Seconds until the earliest timer, -1 if there is none, 0 if this is for Engine._doze(); -2 with an exception. A timer
   that was cancelled is as good: none is earlier. */
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
            if (PyList_CheckExact(first) && PyList_GET_SIZE(first) > 0) {
                double when = PyFloat_AsDouble(PyList_GET_ITEM(first, 0));
                if (when == -1.0 && PyErr_Occurred()) {
                    left = -2;
                }
                else {
                    left = when - monotonic();
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

/* Sleep until something happens, if that is certainly right, for `limit` seconds at the most unless that is -1; 1 if it
   was right, 0 if not, or -1 with an exception. */
static int
doze(PyObject *self, Engine *engine, double limit, char *interrupted)
{
    int may = may_doze(self, engine);
    double left = may > 0 ? until_timer(engine) : 0;
    if (may < 0 || left < -1) {
        return -1;
    }
    if (!may || left == 0) {
        return 0;
    }
    if (limit >= 0 && (left < 0 || limit < left)) {
        left = limit;
    }
    engine->armed = 0;
    Py_ssize_t waiting = PyObject_Size(engine->ready); /* see "Armed" in bridge._core.engine */
    int failed = waiting < 0 || (waiting == 0 && look(self, engine, left, interrupted) < 0);
    engine->armed = 1;
    return failed ? -1 : 1;
}

/* 1 if somebody is ready, 0 if nobody is, or -1 with an exception. */
static int
is_work(Engine *engine)
{
    Py_ssize_t waiting = PyObject_Size(engine->ready);
    return waiting < 0 ? -1 : waiting > 0;
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
    if (found == NULL || engine->ready == NULL) {
        return unset();
    }
    int dozed = doze(self, engine, -1, NULL);
    if (dozed < 0 && handle_raised(engine) < 0) {
        return NULL;
    }
    if (dozed == 0) {
        long n = PyLong_AsLong(found);
        if ((n == -1 && PyErr_Occurred()) || (n > 1 && look(self, engine, 0, NULL) < 0)) {
            return NULL;
        }
    }
    int work = is_work(engine);
    return work < 0 ? NULL : PyBool_FromLong(work);
}

/* For SwitchingAPI.doze, which tells what it does.

   Who runs the handlers of signals is the hub, and what they raise is no concern of whoever happens to sleep: so a
   signal ends the sleep. A trace function of greenlet's is to see that greenlets switch when they wait. */
static int
doze_in_greenlet(Engine *engine, double limit)
{
    PyObject *edges = engine->edges;
    if (!engine->draining || edges == NULL || Py_TYPE(edges) != edges_class || engine->ready == NULL) {
        return 0;
    }
    PyObject *trace = PyObject_CallNoArgs(gettrace);
    if (trace != Py_None) {
        return done_with(trace);
    }
    Py_DECREF(trace);
    Py_INCREF(edges);
    int dozed = doze(edges, engine, limit, &engine->interrupted);
    Py_DECREF(edges);
    return dozed <= 0 ? dozed : is_work(engine);
}

int
watch_again(int fd, PyObject *channel, PyObject *edges)
{
    if (Py_TYPE(edges) != edges_class) {
        return 0;
    }
    PyObject *number = SLOT(edges, edges_number), *channels = SLOT(edges, edges_channels);
    if (number == NULL || channels == NULL) {
        return 0;
    }
    PyObject *key = PyLong_FromLong(fd);
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
    event.data.fd = fd;
    return epoll_ctl((int)PyLong_AsLong(number), EPOLL_CTL_MOD, fd, &event) == 0;
}

static PyMethodDef edges_methods[] = {
    {"look", (PyCFunction)(void (*)(void))edges_look, METH_FASTCALL, look_doc},
    {"look_again", (PyCFunction)edges_look_again, METH_O, look_again_doc},
    {NULL, NULL, 0, NULL},
};

#else

int
watch_again(int fd, PyObject *channel, PyObject *edges)
{
    return 0;
}

#endif

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
    api->doze = doze_in_greenlet;
#endif
    Py_XSETREF(channel_class, (PyTypeObject *)Py_NewRef(channel));
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
    if (claim_for_interpreter() < 0 || (api = import_switching()) == NULL) {
        return -1;
    }
#ifdef __linux__
    if (intern(&name_arm, "arm") < 0 || intern(&name_handle_error, "handle_error") < 0
        || intern(&name_call, "call") < 0) {
        return -1;
    }
    if (gettrace == NULL && (gettrace = PyObject_GetAttrString((PyObject *)api->greenlet_type, "gettrace")) == NULL) {
        return -1;
    }
#endif
    return prepare_sockets();
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
