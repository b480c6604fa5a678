/* Entering greenlets out of callbacks of the loop, and what wakes those that await: the compiled twins of
   bridge._aio.entering. See _driving.c. */

#include "_driving.parts.h"

PyTypeObject *wakeup_type;
static PyObject *name_error_handler, *name_entry, *name_arm, *name_append;

/* In a callback of the loop, where no drain is armed: switch to g. 1; 0 if nothing was done; -1 with an exception.
   The reference to g is taken away unless nothing was done: a drain may follow, and is not to keep it. */
static int
enter(Engine *engine, PyObject *g)
{
    if (PyList_GET_SIZE(engine->before) || PyList_GET_SIZE(engine->after) || engine->on_idle != Py_None) {
        return 0;
    }
    PyObject *first = PyList_GET_SIZE(engine->heap) ? Py_NewRef(PyList_GET_ITEM(engine->heap, 0)) : NULL;
    PyObject *before = NULL;
    int owned = engine->owned;
    if (!owned) {
        /* else it is the hub that runs the loop, and takes our place as in any drain */
        PyObject *hub = PyObject_GetAttr((PyObject *)engine, name_error_handler);
        PyObject *runner = hub == NULL ? NULL : api->current();
        PyObject *bound = NULL;
        if (runner != NULL) {
            if (!PyObject_TypeCheck(hub, api->greenlet_type) || !api->is_active(hub)) {
                /* it has not begun, and could not take the end of a greenlet: a drain begins it */
                Py_DECREF(hub);
                Py_DECREF(runner);
                Py_XDECREF(first);
                return 0;
            }
            PyObject *parent = PyObject_GetAttr(hub, name_parent);
            if (parent != NULL && (parent == runner || PyObject_SetAttr(hub, name_parent, runner) == 0)) {
                bound = switch_of(runner);
            }
            Py_XDECREF(parent);
        }
        Py_XDECREF(hub);
        Py_XDECREF(runner);
        if (bound == NULL) {
            Py_XDECREF(first);
            if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
                PyErr_Clear(); /* the wake-up is not to be lost: a drain sees to it */
                return 0;
            }
            Py_DECREF(g);
            return -1;
        }
        before = engine->to_runner;
        engine->to_runner = bound;
    }
    engine->armed = engine->draining = 1;
    set_slot(&engine->entered, g);
    engine->turns = 0;
    PyObject *came = api->switch_to(g, shown_args, NULL);
    PyObject *error = came == NULL ? take_exception() : NULL;
    int is_shown = came == shown;
    Py_XDECREF(came);
    if (error != NULL && owned) {
        /* as in an except clause */
        PyObject *handled = PyErr_GetHandledException();
        PyErr_SetHandledException(error);
        if (done_with(PyObject_CallFunctionObjArgs(failed, engine, g, error, NULL)) == 0) {
            Py_CLEAR(error);
        }
        PyErr_SetHandledException(handled);
        Py_XDECREF(handled);
    }
    Py_DECREF(g);
    if (!owned) {
        Py_XSETREF(engine->to_runner, before);
    }
    engine->draining = 0;
    set_slot(&engine->entered, Py_None);
    if (error != NULL) {
        /* thrown into the greenlet that runs the loop: the errors of others come out in the hub */
        if (PyErr_Occurred()) {
            Py_DECREF(error);
            error = take_exception();
        }
        Py_XDECREF(first);
        if (show(engine->aio) == 0) {
            engine->armed = 0;
            done_with(PyObject_CallMethodNoArgs((PyObject *)engine, name_arm));
        }
        if (PyErr_Occurred()) {
            Py_DECREF(error);
        }
        else {
            put_back(error);
        }
        return -1;
    }
    if (!is_shown && show(engine->aio) < 0) {
        Py_XDECREF(first);
        return -1;
    }
    if (!is_whole((PyObject *)engine)) {
        Py_XDECREF(first);
        PyErr_SetString(PyExc_TypeError, "an engine has lost a part of itself");
        return -1;
    }
    Py_ssize_t ready = PyObject_Size(engine->ready);
    int other_timer = PyList_GET_SIZE(engine->heap) && PyList_GET_ITEM(engine->heap, 0) != first;
    Py_XDECREF(first);
    if (ready < 0) {
        return -1;
    }
    if (ready || engine->stopping || (engine->refs <= 0 && engine->owned) || other_timer) {
        /* something that only a drain deals with; else the alarm stands for the first timer as it did */
        return done_with(PyObject_CallMethodNoArgs((PyObject *)engine, name_entry)) < 0 ? -1 : 1;
    }
    engine->armed = 0;
    if (PyObject_Size(engine->ready)) { /* appended by another thread in between */
        return done_with(PyObject_CallMethodNoArgs((PyObject *)engine, name_arm)) < 0 ? -1 : 1;
    }
    return 1;
}

/* In a step of task (None: there is none): start g. */
PyObject *
begin(Engine *engine, PyObject *aio, PyObject *task, PyObject *g, PyObject *args, PyObject *kwargs)
{
    PyObject *current = api->current();
    if (current == NULL) {
        return NULL;
    }
    PyObject *bound = switch_of(current);
    Py_DECREF(current);
    if (bound == NULL) {
        return NULL;
    }
    if (task != Py_None && leave_task(aio, task) < 0) {
        Py_DECREF(bound);
        return NULL;
    }
    if (hide() < 0) {
        PyObject *error = take_exception();
        if (task == Py_None || enter_task(aio, task) == 0) {
            put_back(error);
        }
        else {
            Py_DECREF(error);
        }
        Py_DECREF(bound);
        return NULL;
    }
    PyObject *to_runner = engine->to_runner, *entered = engine->entered;
    Py_ssize_t turns = engine->turns;
    char draining = engine->draining;
    engine->to_runner = bound;
    engine->entered = Py_NewRef(g);
    engine->turns = 0;
    engine->draining = 1;
    PyObject *came = api->switch_to(g, args, kwargs);
    PyObject *error = came == NULL ? take_exception() : NULL;
    Py_XSETREF(engine->to_runner, to_runner);
    Py_XSETREF(engine->entered, entered);
    engine->turns = turns;
    engine->draining = draining;
    int bad = came != shown && show(aio) < 0;
    if (task != Py_None) {
        PyObject *before = bad ? take_exception() : NULL;
        bad = enter_task(aio, task) < 0; /* all the same, or the task never ends */
        if (before != NULL) {
            PyErr_Clear();
            put_back(before);
            bad = 1;
        }
    }
    if (!bad && !engine->armed) {
        Py_ssize_t ready = PyObject_Size(engine->ready);
        /* greenlets rely on a drain that goes on when they leave it */
        bad = ready < 0 || (ready && done_with(PyObject_CallMethodNoArgs((PyObject *)engine, name_arm)) < 0);
    }
    if (bad) {
        Py_CLEAR(came);
        Py_XDECREF(error);
    }
    else if (error != NULL) {
        put_back(error);
    }
    return came;
}

PyDoc_STRVAR(begin_doc,
"begin(engine, aio, task, g, args, kwargs, /)\n--\n\n"
"In a step of ``task``: start ``g``, a child of the current greenlet; returns what it comes back with.");

static PyObject *
begin_py(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (is_new(LOOPS)) {
        return NULL;
    }
    if (nargs != 6 || !is_whole(args[0]) || !PyTuple_Check(args[4]) || !PyDict_Check(args[5])) {
        PyErr_SetString(PyExc_TypeError, "begin() takes an engine, a loop, a task, a greenlet, a tuple and a dict");
        return NULL;
    }
    return begin((Engine *)args[0], args[1], args[2], args[3], args[4], args[5]);
}

/* ---- wake-ups ----------------------------------------------------------------------------------------------- */

PyObject *
new_wakeup(PyObject *wait)
{
    Wakeup *self = (Wakeup *)wakeup_type->tp_alloc(wakeup_type, 0);
    if (self != NULL) {
        self->wait = Py_NewRef(wait);
        self->future = Py_NewRef(Py_None);
    }
    return (PyObject *)self;
}

static PyObject *
wakeup_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *wait;
    if (!PyArg_ParseTuple(args, "O!:Wakeup", api->wait_type, &wait)) {
        return NULL;
    }
    return new_wakeup(wait);
}

static PyObject *
wakeup_call(Wakeup *self, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) > 1 || (kwargs != NULL && PyDict_GET_SIZE(kwargs))) {
        PyErr_SetString(PyExc_TypeError, "a wake-up takes one argument, the future");
        return NULL;
    }
    if (self->stale > 0 && (PyTuple_GET_SIZE(args) == 0 || PyTuple_GET_ITEM(args, 0) == Py_None)) {
        self->stale--;
        Py_RETURN_NONE;
    }
    Wait *wait = (Wait *)self->wait;
    if (wait == NULL || wait->woken || (PyTuple_GET_SIZE(args) ? PyTuple_GET_ITEM(args, 0) : Py_None) != self->future) {
        Py_RETURN_NONE; /* one that an interruption has put an end to */
    }
    if (is_new(LOOPS)) {
        return NULL;
    }
    if (wait->engine == NULL || !is_whole(wait->engine) || wait->greenlet == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a wake-up for a wait that is not in an engine");
        return NULL;
    }
    wait->woken = 1;
    if (wait->queued) {
        Py_XSETREF(wait->target, Py_NewRef(wait->greenlet));
        Py_RETURN_NONE;
    }
    Engine *engine = (Engine *)Py_NewRef(wait->engine);
    int done = 0;
    if (!engine->armed) {
        PyObject *g = Py_NewRef(wait->greenlet);
        done = enter(engine, g);
        if (done == 0) {
            Py_DECREF(g);
        }
    }
    if (done == 0) {
        wait->queued = 1;
        Py_XSETREF(wait->target, Py_NewRef(wait->greenlet));
        done = done_with(PyObject_CallMethodOneArg(engine->ready, name_append, (PyObject *)wait));
        if (done == 0 && !engine->armed) {
            engine->armed = 1;
            done = done_with(PyObject_CallMethodNoArgs((PyObject *)engine, name_entry));
        }
    }
    Py_DECREF(engine);
    if (done < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
wakeup_traverse(Wakeup *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->wait);
    Py_VISIT(self->future);
    return 0;
}

static int
wakeup_clear(Wakeup *self)
{
    Py_CLEAR(self->wait);
    Py_CLEAR(self->future);
    return 0;
}

DEALLOC(wakeup, Wakeup)

static PyMemberDef wakeup_members[] = {
    {"wait", T_OBJECT_EX, offsetof(Wakeup, wait), READONLY, "the wait that it ends"},
    {"future", T_OBJECT_EX, offsetof(Wakeup, future), 0, "what is waited for; None: nothing, or the next round"},
    {"stale", T_PYSSIZET, offsetof(Wakeup, stale), 0, "how many rounds are to come for which nobody waits any more"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot wakeup_slots[] = {
    {Py_tp_doc, (void *)"What a future is told to call when it is done; see bridge._aio.entering."},
    {Py_tp_new, wakeup_new},
    {Py_tp_call, wakeup_call},
    {Py_tp_traverse, wakeup_traverse},
    {Py_tp_clear, wakeup_clear},
    {Py_tp_dealloc, wakeup_dealloc},
    {Py_tp_members, wakeup_members},
    {0, NULL},
};

static PyType_Spec wakeup_spec = {
    .name = "bridge._aio._driving.Wakeup",
    .basicsize = sizeof(Wakeup),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = wakeup_slots,
};

static const struct name names[] = {
    {&name_error_handler, "error_handler"},
    {&name_entry, "entry"},
    {&name_arm, "arm"},
    {&name_append, "append"},
};

static PyMethodDef functions[] = {
    {"begin", (PyCFunction)(void (*)(void))begin_py, METH_FASTCALL, begin_doc},
    {NULL, NULL, 0, NULL},
};

int
add_entering(PyObject *module)
{
    if (intern_names(names, Py_ARRAY_LENGTH(names)) < 0
        || add_type(module, "Wakeup", &wakeup_spec, &wakeup_type) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}
