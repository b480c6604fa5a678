/* Blocking functions that coroutines call: the compiled twin of the beginning of bridge._calling. */

#include "_driving.parts.h"

static PyTypeObject *call_class;
static PyObject *find_place, *greenlet_exit, *in_frame;
static PyObject *name_gr_context, *name_set_result, *name_is_closed;

/* Where the slots of a call are. */
static struct {
    Py_ssize_t function, future;
} at, found;

#define CALL_SLOT(object, name) (*(PyObject **)((char *)(object) + at.name))

/* What call() returns if the function has blocked; a class of its own, as a function may return anything. */
typedef struct {
    PyObject_HEAD
    PyObject *call;
} Blocked;

static PyTypeObject *blocked_type;

static PyObject *
new_blocked(PyObject *g)
{
    Blocked *self = (Blocked *)blocked_type->tp_alloc(blocked_type, 0);
    if (self != NULL) {
        self->call = Py_NewRef(g);
    }
    return (PyObject *)self;
}

static int
blocked_traverse(Blocked *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->call);
    return 0;
}

static int
blocked_clear(Blocked *self)
{
    Py_CLEAR(self->call);
    return 0;
}

DEALLOC(blocked, Blocked)

static PyMemberDef blocked_members[] = {
    {"call", T_OBJECT_EX, offsetof(Blocked, call), READONLY, "the greenlet whose end is to be awaited"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot blocked_slots[] = {
    {Py_tp_doc, (void *)"What call() returns if the function has blocked; see bridge._calling."},
    {Py_tp_traverse, blocked_traverse},
    {Py_tp_clear, blocked_clear},
    {Py_tp_dealloc, blocked_dealloc},
    {Py_tp_members, blocked_members},
    {0, NULL},
};

static PyType_Spec blocked_spec = {
    .name = "bridge._aio._driving.Blocked",
    .basicsize = sizeof(Blocked),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = blocked_slots,
};

/* Give a result to the coroutine that awaits it; 0, or -1. */
static int
tell(PyObject *future, PyObject *exception, PyObject *value)
{
    PyObject *done = PyObject_CallMethodNoArgs(future, name_done);
    if (done == NULL) {
        return -1;
    }
    Py_DECREF(done);
    if (done == Py_True) {
        return 0;
    }
    PyObject *loop = PyObject_CallMethodNoArgs(future, name_get_loop);
    PyObject *closed = loop == NULL ? NULL : PyObject_CallMethodNoArgs(loop, name_is_closed);
    Py_XDECREF(loop);
    if (closed == NULL) {
        return -1;
    }
    Py_DECREF(closed);
    if (closed == Py_True) {
        return 0;
    }
    PyObject *pair = PyTuple_Pack(2, exception, value);
    if (pair == NULL) {
        return -1;
    }
    int failing = done_with(PyObject_CallMethodOneArg(future, name_set_result, pair));
    Py_DECREF(pair);
    return failing;
}

/* Whether a call of it has a frame in Python for as long as it lasts. */
static int
has_frame(PyObject *function)
{
    return PyFunction_Check(PyMethod_Check(function) ? PyMethod_GET_FUNCTION(function) : function);
}

PyDoc_STRVAR(run_call_doc,
"run_call($module, /, *args, **kwargs)\n--\n\n"
"In the greenlet of a call: make the call.");

static PyObject *
run_call(PyObject *module, PyObject *args, PyObject *kwargs)
{
    PyObject *g = api->current();
    if (g == NULL) {
        return NULL;
    }
    PyObject *value = NULL;
    if (!(known & CALLS) || Py_TYPE(g) != call_class || CALL_SLOT(g, function) == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "run_call() is for the greenlets of calls");
    }
    else {
        PyObject *function = Py_NewRef(CALL_SLOT(g, function));
        value = has_frame(function)
                    ? PyObject_Call(function, args, kwargs)
                    : PyObject_CallFunctionObjArgs(in_frame, function, args, kwargs == NULL ? Py_None : kwargs, NULL);
        Py_DECREF(function);
        if (value == NULL && PyErr_ExceptionMatches(greenlet_exit)) {
            value = take_exception();
        }
        PyObject *future = CALL_SLOT(g, future);
        if (future != NULL && future != Py_None) {
            Py_INCREF(future);
            PyObject *error = value == NULL ? take_exception() : NULL;
            int failing = tell(future, error == NULL ? Py_None : error, value == NULL ? Py_None : value);
            Py_XDECREF(error);
            Py_XDECREF(value);
            Py_DECREF(future);
            value = failing ? NULL : Py_NewRef(Py_None);
        }
    }
    Py_DECREF(g);
    return value;
}

PyDoc_STRVAR(call_doc,
"call(function, args, kwargs, /)\n--\n\n"
"In a coroutine: call a blocking function in a greenlet, in a copy of the context.");

static PyObject *
call(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (is_new(LOOPS | TASKS | CALLS)) {
        return NULL;
    }
    if (nargs != 3 || !PyTuple_Check(args[1]) || !PyDict_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "call() takes a function, a tuple and a dict");
        return NULL;
    }
    PyObject *hub, *aio = NULL, *task = NULL, *g = NULL, *value = NULL;
    Engine *engine = engine_here(&hub);
    if (engine == NULL && PyErr_Occurred()) {
        return NULL;
    }
    if (engine != NULL) {
        aio = Py_NewRef(engine->aio);
        if (current_tasks != NULL) {
            task = Py_XNewRef(PyDict_GetItemWithError(current_tasks, aio));
        }
        else {
            task = PyObject_CallOneArg(get_current_task, aio);
        }
        if (task == NULL && PyErr_Occurred()) {
            goto done;
        }
    }
    /* if there is a task this is the loop that runs */
    if (task == NULL || task == Py_None || (engine->owned && !engine->running)) {
        Py_CLEAR(task);
        Py_CLEAR(aio);
        Py_CLEAR(engine);
        Py_CLEAR(hub);
        PyObject *place = PyObject_CallNoArgs(find_place);
        if (place == NULL) {
            return NULL;
        }
        if (!PyArg_ParseTuple(place, "OO!OO", &hub, api->engine_type, &engine, &aio, &task)) {
            Py_DECREF(place);
            return NULL;
        }
        Py_INCREF(hub);
        Py_INCREF(engine);
        Py_INCREF(aio);
        Py_INCREF(task);
        Py_DECREF(place);
    }
    g = call_class->tp_new(call_class, empty, NULL); /* a child of the current one; greenlet's __init__ adds nothing */
    if (g == NULL) {
        goto done;
    }
    set_slot(&CALL_SLOT(g, function), args[0]);
    PyObject *context = PyContext_CopyCurrent();
    if (context == NULL || PyObject_SetAttr(g, name_gr_context, context) < 0) {
        Py_XDECREF(context);
        goto done;
    }
    Py_DECREF(context);
    value = begin(engine, aio, task, g, args[1], args[2]);
    if (api->is_active(g)) {
        /* it has blocked; where it ends now is the hub */
        PyObject *error = value == NULL ? take_exception() : NULL;
        int failing = PyObject_SetAttr(g, name_parent, hub) < 0;
        if (error != NULL && !failing) {
            put_back(error);
        }
        else {
            Py_XDECREF(error);
            Py_XSETREF(value, failing ? NULL : new_blocked(g));
        }
    }
done:
    Py_XDECREF(g);
    Py_XDECREF(task);
    Py_XDECREF(aio);
    Py_XDECREF(engine);
    Py_XDECREF(hub);
    return value;
}

PyDoc_STRVAR(use_calls_doc,
"use_calls(call_class, find_place, greenlet_exit, in_frame, /)\n--\n\n"
"Called once, by bridge._calling.");

static PyObject *
use_calls(PyObject *module, PyObject *args)
{
    PyObject *type, *given[3];
    if (!PyArg_ParseTuple(args, "O!OOO:use_calls", &PyType_Type, &type, &given[0], &given[1], &given[2])) {
        return NULL;
    }
    if (find_slot((PyTypeObject *)type, "function", T_OBJECT_EX, &found.function) < 0
        || find_slot((PyTypeObject *)type, "future", T_OBJECT_EX, &found.future) < 0) {
        return NULL;
    }
    at = found;
    keep((PyObject **)&call_class, type);
    keep(&find_place, given[0]);
    keep(&greenlet_exit, given[1]);
    keep(&in_frame, given[2]);
    known |= CALLS;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"call", (PyCFunction)(void (*)(void))call, METH_FASTCALL, call_doc},
    {"run_call", (PyCFunction)(void (*)(void))run_call, METH_VARARGS | METH_KEYWORDS, run_call_doc},
    {"use_calls", use_calls, METH_VARARGS, use_calls_doc},
    {NULL, NULL, 0, NULL},
};

static const struct name names[] = {
    {&name_gr_context, "gr_context"},
    {&name_set_result, "set_result"},
    {&name_is_closed, "is_closed"},
};

int
add_calls(PyObject *module)
{
    if (intern_names(names, Py_ARRAY_LENGTH(names)) < 0
        || add_type(module, "Blocked", &blocked_spec, &blocked_type) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}
