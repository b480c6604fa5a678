/* Timers: the compiled twins of the methods of bridge._core.switching.EngineBase that begin, cancel and end them.

   A timer is a list: when (monotonic seconds), a serial number, a function or None, its argument, and whether it is a
   reason to go on. No code in Python runs between taking one out of the heap and calling its function, so that what a
   signal handler raises cannot come in between. (That of waits, the most frequent one, is in C itself.) */

#include "_switching.parts.h"

enum { WHEN, SERIAL, FUNCTION, ARGUMENT, REF, FIELDS };

static PyObject *heappush, *heappop, *name_rebuild;

/* The heap of an engine; a borrowed reference, NULL with an exception. */
static PyObject *
heap_of(Engine *self)
{
    PyObject *heap = self->heap;
    if (heap == NULL || !PyList_CheckExact(heap)) {
        PyErr_SetString(PyExc_TypeError, "the heap of an engine must be a list");
        return NULL;
    }
    return heap;
}

static int
is_timer(PyObject *object)
{
    if (PyList_CheckExact(object) && PyList_GET_SIZE(object) == FIELDS) {
        return 1;
    }
    PyErr_Format(PyExc_TypeError, "%R is no timer", object);
    return 0;
}

static void
set_field(PyObject *timer, Py_ssize_t field, PyObject *value)
{
    PyObject *before = PyList_GET_ITEM(timer, field);
    PyList_SET_ITEM(timer, field, Py_NewRef(value));
    Py_DECREF(before);
}

const char call_at_doc[] = PyDoc_STR(
"call_at($self, /, when, fn, arg, ref=True)\n--\n\n"
"Have ``fn(arg)`` called at ``when`` (monotonic seconds). This thread only.");

PyObject *
engine_call_at(Engine *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *ref = nargs > 3 ? args[3] : Py_True;
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (named == 1 && nargs == 3 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "ref") == 0) {
        ref = args[3];
    }
    else if (named != 0 || nargs < 3 || nargs > 4) {
        PyErr_SetString(PyExc_TypeError, "call_at() takes when, fn, arg and ref");
        return NULL;
    }
    PyObject *heap = heap_of(self);
    PyObject *serial = heap == NULL ? NULL : PyLong_FromLongLong(self->serial++);
    PyObject *timer = serial == NULL ? NULL : PyList_New(FIELDS);
    if (timer == NULL) {
        Py_XDECREF(serial);
        return NULL;
    }
    PyList_SET_ITEM(timer, WHEN, Py_NewRef(args[0]));
    PyList_SET_ITEM(timer, SERIAL, serial);
    PyList_SET_ITEM(timer, FUNCTION, Py_NewRef(args[1]));
    PyList_SET_ITEM(timer, ARGUMENT, Py_NewRef(args[2]));
    PyList_SET_ITEM(timer, REF, Py_NewRef(ref));
    Py_INCREF(heap);
    int failed = done_with(PyObject_CallFunctionObjArgs(heappush, heap, timer, NULL));
    Py_DECREF(heap);
    if (!failed && !self->armed && arm((PyObject *)self) < 0) {
        failed = 1;
        set_field(timer, FUNCTION, Py_None); /* it is in the heap, which nobody is to know */
        set_field(timer, ARGUMENT, Py_None);
        self->cancelled++;
    }
    if (failed) {
        Py_CLEAR(timer);
    }
    return timer;
}

const char cancel_doc[] = PyDoc_STR(
"cancel($self, timer, /)\n--\n\n"
"Cancel a timer; False if it has gone off or was cancelled before.");

PyObject *
engine_cancel(Engine *self, PyObject *timer)
{
    if (!is_timer(timer)) {
        return NULL;
    }
    if (PyList_GET_ITEM(timer, FUNCTION) == Py_None) {
        Py_RETURN_FALSE;
    }
    PyObject *heap = heap_of(self);
    if (heap == NULL) {
        return NULL;
    }
    Py_ssize_t n = PyList_GET_SIZE(heap);
    int failed = 0;
    Py_INCREF(heap);
    if (n > 0 && PyList_GET_ITEM(heap, n - 1) == timer) { /* a leaf may go at once; see the twin */
        failed = PyList_SetSlice(heap, n - 1, n, NULL);
    }
    else if (++self->cancelled > 64 && self->cancelled * 2 > n) {
        set_field(timer, FUNCTION, Py_None);
        failed = done_with(PyObject_CallMethodNoArgs((PyObject *)self, name_rebuild));
    }
    Py_DECREF(heap);
    set_field(timer, FUNCTION, Py_None);
    set_field(timer, ARGUMENT, Py_None);
    if (failed) {
        return NULL;
    }
    Py_RETURN_TRUE;
}

/* There was no memory to do what a timer is there for: it stays, as somebody relies on it. With an exception set. */
static void
put_off(PyObject *heap, PyObject *timer, PyObject *function, PyObject *argument)
{
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    set_field(timer, FUNCTION, function);
    set_field(timer, ARGUMENT, argument);
    if (done_with(PyObject_CallFunctionObjArgs(heappush, heap, timer, NULL)) < 0) {
        PyErr_Clear();
    }
    PyErr_Restore(type, value, tb);
}

const char expire_doc[] = PyDoc_STR(
"expire($self, now, /)\n--\n\n"
"Call what is due at ``now``.");

PyObject *
engine_expire(Engine *self, PyObject *arg)
{
    double now = PyFloat_AsDouble(arg);
    PyObject *heap = now == -1.0 && PyErr_Occurred() ? NULL : heap_of(self);
    if (heap == NULL) {
        return NULL;
    }
    Py_INCREF(heap);
    int failed = 0;
    while (!failed && PyList_GET_SIZE(heap) > 0) {
        PyObject *first = PyList_GET_ITEM(heap, 0);
        double when = is_timer(first) ? PyFloat_AsDouble(PyList_GET_ITEM(first, WHEN)) : -1.0;
        if (when == -1.0 && PyErr_Occurred()) {
            failed = 1;
            break;
        }
        if (!(when <= now)) {
            break;
        }
        PyObject *timer = PyObject_CallOneArg(heappop, heap);
        if (timer == NULL || !is_timer(timer)) {
            Py_XDECREF(timer);
            failed = 1;
            break;
        }
        PyObject *function = Py_NewRef(PyList_GET_ITEM(timer, FUNCTION));
        if (function == Py_None) {
            self->cancelled -= self->cancelled > 0;
        }
        else {
            PyObject *argument = Py_NewRef(PyList_GET_ITEM(timer, ARGUMENT));
            set_field(timer, FUNCTION, Py_None);
            set_field(timer, ARGUMENT, Py_None);
            failed = done_with(PyObject_CallOneArg(function, argument)) < 0;
            if (failed && PyErr_ExceptionMatches(PyExc_MemoryError)) {
                put_off(heap, timer, function, argument);
            }
            Py_DECREF(argument);
        }
        Py_DECREF(function);
        Py_DECREF(timer);
    }
    Py_DECREF(heap);
    if (failed) {
        return NULL;
    }
    Py_RETURN_NONE;
}

int
prepare_timers(void)
{
    if (intern(&name_rebuild, "_rebuild_heap") < 0) {
        return -1;
    }
    if (heappop != NULL) {
        return 0;
    }
    PyObject *module = PyImport_ImportModule("heapq");
    if (module == NULL) {
        return -1;
    }
    heappush = PyObject_GetAttrString(module, "heappush");
    heappop = heappush == NULL ? NULL : PyObject_GetAttrString(module, "heappop");
    Py_DECREF(module);
    return heappop == NULL ? -1 : 0;
}
