/* One wait of one greenlet, and calls that the hub will make: the compiled twins of bridge._core.switching.WaitBase and
   CallbackBase. */

#include "_switching.parts.h"

PyTypeObject *wait_type, *wait_class;
PyObject *get_hub;
static PyObject *hub_local, *blocking_place;
static PyObject *name_probe, *name_timeout, *name_park, *name_block_for, *name_invalid, *name_awake,
    *name_pause;

static int
wait_init(Wait *self, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) != 0 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0)) {
        PyErr_SetString(PyExc_TypeError, "Wait() takes no arguments");
        return -1;
    }
    PyObject *place = NULL;
    PyObject *hub = hub_here(hub_local);
    if (hub == NULL) {
        return -1;
    }
    if (hub == Py_None) {
        Py_DECREF(hub);
        hub = PyObject_CallNoArgs(get_hub);
        if (hub == NULL) {
            return -1;
        }
    }
    PyObject *current = greenlet_current();
    if (current == NULL) {
        Py_DECREF(hub);
        return -1;
    }
    Py_XSETREF(self->greenlet, current);
    if (current != hub) {
        PyObject *loop = loop_of(hub);
        if (loop == NULL) {
            Py_DECREF(hub);
            return -1;
        }
        PyObject *running = PyObject_TypeCheck(loop, engine_type) ? engine_probe((Engine *)loop, NULL)
                                                                  : PyObject_CallMethodNoArgs(loop, name_probe);
        if (running == NULL) {
            Py_DECREF(hub);
            Py_DECREF(loop);
            return -1;
        }
        Py_DECREF(running);
        if (running == Py_None) {
            place = loop;
        }
        else {
            Py_DECREF(loop);
        }
    }
    Py_DECREF(hub);
    if (place == NULL) {
        /* the hub itself, a portal, or a hub whose loop has ended */
        place = PyObject_CallOneArg(blocking_place, current);
        if (place == NULL) {
            return -1;
        }
    }
    Py_XSETREF(self->engine, place);
    self->dead = self->woken = self->timed_out = self->queued = 0;
    self->away = 1;
    return 0;
}

PyDoc_STRVAR(wake_doc,
"wake($self, /)\n--\n\n"
"End the wait. From any thread, greenlet or callback; does nothing the second time.");

PyObject *
wait_wake(Wait *self, PyObject *ignored)
{
    if (!self->woken) {
        self->woken = 1;
        Py_XSETREF(self->target, Py_XNewRef(self->greenlet));
        if (!self->queued) {
            self->queued = 1;
            PyObject *engine = Py_XNewRef(self->engine);
            if (engine == NULL) {
                PyErr_SetString(PyExc_AttributeError, "engine");
                return NULL;
            }
            int armed = append_ready(engine, (PyObject *)self);
            if (armed < 0) { /* no memory: somebody may try again */
                self->woken = self->queued = 0;
                Py_XSETREF(self->target, Py_NewRef(Py_None));
            }
            int failed = armed < 0 || (!armed && arm(engine) < 0);
            Py_DECREF(engine);
            if (failed) {
                return NULL;
            }
        }
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(wait_expire_doc,
"_expire($self, /)\n--\n\n"
"The time limit of the wait is over.");

static PyObject *
wait_expire(Wait *self, PyObject *ignored)
{
    if (self->woken) {
        self->queued = 0; /* no timer is left to end the wait: what is queued must not be taken back any more */
        Py_RETURN_NONE;
    }
    self->timed_out = 1;
    PyObject *done = wait_wake(self, NULL);
    if (done == NULL && !self->woken) {
        self->timed_out = 0;
    }
    return done;
}

PyDoc_STRVAR(notify_doc,
"notify($self, source, /)\n--\n\n"
"What the wait was for has finished: :meth:`wake`.");

static PyObject *
wait_notify(Wait *self, PyObject *source)
{
    return wait_wake(self, NULL);
}

PyDoc_STRVAR(again_doc,
"again($self, /)\n--\n\n"
"A wake-up was in vain, if there was one: it is void, and the next one counts.");

static PyObject *
wait_again(Wait *self, PyObject *ignored)
{
    self->woken = 0;
    Py_XSETREF(self->target, Py_NewRef(Py_None));
    Py_RETURN_NONE;
}

void
over_wait(Wait *self)
{
    self->woken = 1;
    /* not the greenlet either: this wait is in the traceback of what the greenlet may end with */
    Py_XSETREF(self->target, Py_NewRef(Py_None));
    Py_XSETREF(self->greenlet, Py_NewRef(Py_None));
}

PyDoc_STRVAR(give_up_doc,
"give_up($self, /)\n--\n\n"
"The wait is over, without its wake-up: the one that may be queued, or comes later, is for nobody.");

static PyObject *
wait_give_up(Wait *self, PyObject *ignored)
{
    over_wait(self);
    Py_RETURN_NONE;
}

/* A signal has ended our sleep: switch to the hub, where its handlers are to run, before any code in Python does; 1 if we
   have been woken meanwhile, 0 if we have to wait on, or -1 with an exception. */
static int
let_handlers_run(Wait *self, Engine *engine)
{
    Py_XSETREF(self->target, Py_XNewRef(self->greenlet));
    self->queued = 1;
    if (make_ready((PyObject *)engine, (PyObject *)self) < 0 || done_with(engine_yield(engine)) < 0) {
        return -1;
    }
    if (!self->woken) {
        Py_XSETREF(self->target, Py_NewRef(Py_None));
    }
    return self->woken;
}

/* block() with a limit. There is no need for a timer if we are woken before anybody else, and in the sleep that we do
   ourselves. */
static PyObject *
block_for(Wait *self, PyObject *timeout)
{
    PyObject *engine = self->engine;
    double limit = PyFloat_CheckExact(timeout) ? PyFloat_AS_DOUBLE(timeout) : 0;
    if (!(limit > 0) || engine == NULL || !PyObject_TypeCheck(engine, engine_type)) {
        return PyObject_CallMethodOneArg((PyObject *)self, name_block_for, timeout);
    }
    double began = monotonic();
    Py_INCREF(engine);
    int first = doze_for((Engine *)engine, (PyObject *)self, limit);
    if (first == 0 && ((Engine *)engine)->interrupted) {
        first = let_handlers_run(self, (Engine *)engine);
    }
    Py_DECREF(engine);
    if (first < 0) {
        over_wait(self);
        return NULL;
    }
    if (first) {
        Py_RETURN_TRUE;
    }
    PyObject *left = PyFloat_FromDouble(limit - (monotonic() - began));
    PyObject *woken = left == NULL ? NULL : PyObject_CallMethodOneArg((PyObject *)self, name_block_for, left);
    Py_XDECREF(left);
    return woken;
}

/* As the twin has it; -1 with an exception. */
static int
came_too_early(Wait *self)
{
    if (!self->woken || self->queued) {
        return 0;
    }
    if (self->engine == NULL || PyObject_TypeCheck(self->engine, engine_type)) {
        return 1;
    }
    PyObject *awake = PyObject_GetAttr(self->engine, name_awake);
    return done_with(awake) < 0 ? -1 : awake != Py_True;
}

static PyObject *
block_without_limit(Wait *self)
{
    PyObject *engine = Py_XNewRef(self->engine);
    if (engine == NULL) {
        PyErr_SetString(PyExc_AttributeError, "engine");
        return NULL;
    }
    PyObject *came = PyObject_TypeCheck(engine, engine_type) ? engine_park((Engine *)engine, NULL)
                                                             : PyObject_CallMethodNoArgs(engine, name_park);
    Py_DECREF(engine);
    if (came != NULL) {
        Py_DECREF(came);
        if (self->woken) {
            Py_RETURN_TRUE;
        }
        PyObject *error = PyObject_CallMethodNoArgs((PyObject *)self, name_invalid);
        if (error != NULL) {
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
            Py_DECREF(error);
        }
    }
    over_wait(self);
    return NULL;
}

PyDoc_STRVAR(block_doc,
"block($self, /, timeout=None)\n--\n\n"
"Let others run until :meth:`wake`; True if woken, False after ``timeout`` seconds.\n\n"
"An exception thrown into the greenlet comes out of here; the wait is over then, and a wake-up that was on its\n"
"way is void. The caller withdraws from where it was registered.");

static PyObject *
wait_block(Wait *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Py_ssize_t n = nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames));
    if (n > 0) {
        if (n > 1 || (nargs == 0 && PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), name_timeout) != 0)) {
            if (!PyErr_Occurred()) {
                PyErr_SetString(PyExc_TypeError, "block() takes one argument, timeout");
            }
            return NULL;
        }
    }
    int early = came_too_early(self);
    if (early) {
        return early < 0 ? NULL : Py_NewRef(Py_True);
    }
    self->away = 0;
    PyObject *woken = n > 0 && args[0] != Py_None ? block_for(self, args[0]) : block_without_limit(self);
    self->away = 1;
    return woken;
}

PyDoc_STRVAR(turn_doc,
"turn($self, /)\n--\n\n"
"Let those run who are ready now, once.");

static PyObject *
wait_turn(Wait *self, PyObject *ignored)
{
    if (self->engine != NULL && !PyObject_TypeCheck(self->engine, engine_type)) {
        PyObject *pause = PyObject_GetAttr(self->engine, name_pause);
        if (pause != NULL) {
            PyObject *result = PyObject_CallNoArgs(pause);
            Py_DECREF(pause);
            return result;
        }
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return NULL;
        }
        PyErr_Clear();
    }
    if (done_with(wait_wake(self, NULL)) < 0 || done_with(wait_block(self, NULL, 0, NULL)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
wait_traverse(Wait *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->engine);
    Py_VISIT(self->greenlet);
    Py_VISIT(self->target);
    Py_VISIT(self->item);
    return 0;
}

static int
wait_clear(Wait *self)
{
    Py_CLEAR(self->engine);
    Py_CLEAR(self->greenlet);
    Py_CLEAR(self->target);
    Py_CLEAR(self->item);
    return 0;
}

static PyMethodDef wait_methods[] = {
    {"wake", (PyCFunction)wait_wake, METH_NOARGS, wake_doc},
    {"notify", (PyCFunction)wait_notify, METH_O, notify_doc},
    {"again", (PyCFunction)wait_again, METH_NOARGS, again_doc},
    {"turn", (PyCFunction)wait_turn, METH_NOARGS, turn_doc},
    {"block", (PyCFunction)(void (*)(void))wait_block, METH_FASTCALL | METH_KEYWORDS, block_doc},
    {"_expire", (PyCFunction)wait_expire, METH_NOARGS, wait_expire_doc},
    {"give_up", (PyCFunction)wait_give_up, METH_NOARGS, give_up_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef wait_members[] = {
    {"engine", T_OBJECT_EX, offsetof(Wait, engine), 0, NULL},
    {"greenlet", T_OBJECT_EX, offsetof(Wait, greenlet), 0, NULL},
    {"target", T_OBJECT_EX, offsetof(Wait, target), 0, NULL},
    {"item", T_OBJECT_EX, offsetof(Wait, item), 0, NULL},
    {"dead", T_BOOL, offsetof(Wait, dead), 0, NULL},
    {"woken", T_BOOL, offsetof(Wait, woken), 0, NULL},
    {"timed_out", T_BOOL, offsetof(Wait, timed_out), 0, NULL},
    {"queued", T_BOOL, offsetof(Wait, queued), 0, NULL},
    {"away", T_BOOL, offsetof(Wait, away), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* ---- callbacks ---------------------------------------------------------------------------------------------- */

static int
callback_init(Callback *self, PyObject *args, PyObject *kwargs)
{
    PyObject *callback, *arguments;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Callback() takes no keyword arguments");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "OO:Callback", &callback, &arguments)) {
        return -1;
    }
    Py_XSETREF(self->callback, Py_NewRef(callback));
    Py_XSETREF(self->args, Py_NewRef(arguments));
    return 0;
}

PyDoc_STRVAR(stop_doc,
"stop($self, /)\n--\n\n"
"Do not make the call if it has not begun; never blocks.");

static PyObject *
callback_stop(Callback *self, PyObject *ignored)
{
    Py_XSETREF(self->callback, Py_NewRef(Py_None));
    Py_XSETREF(self->args, Py_NewRef(Py_None));
    Py_RETURN_NONE;
}

static int
callback_traverse(Callback *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->callback);
    Py_VISIT(self->args);
    return 0;
}

static int
callback_clear(Callback *self)
{
    Py_CLEAR(self->callback);
    Py_CLEAR(self->args);
    return 0;
}

static PyMethodDef callback_methods[] = {
    {"stop", (PyCFunction)callback_stop, METH_NOARGS, stop_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef callback_members[] = {
    {"callback", T_OBJECT, offsetof(Callback, callback), 0, NULL},
    {"args", T_OBJECT, offsetof(Callback, args), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

DEALLOC(wait, Wait)
DEALLOC(callback, Callback)

static PyType_Slot wait_slots[] = {
    {Py_tp_doc, (void *)"The quick half of a wait; see bridge._core.switching."},
    {Py_tp_init, wait_init},
    {Py_tp_traverse, wait_traverse},
    {Py_tp_clear, wait_clear},
    {Py_tp_dealloc, wait_dealloc},
    {Py_tp_methods, wait_methods},
    {Py_tp_members, wait_members},
    {0, NULL},
};

static PyType_Slot callback_slots[] = {
    {Py_tp_doc, (void *)"The quick half of a callback; see bridge._core.switching."},
    {Py_tp_init, callback_init},
    {Py_tp_traverse, callback_traverse},
    {Py_tp_clear, callback_clear},
    {Py_tp_dealloc, callback_dealloc},
    {Py_tp_methods, callback_methods},
    {Py_tp_members, callback_members},
    {0, NULL},
};

static PyType_Spec wait_spec = {
    .name = "bridge._core._switching.WaitBase",
    .basicsize = sizeof(Wait),
    .flags = FLAGS,
    .slots = wait_slots,
};

static PyType_Spec callback_spec = {
    .name = "bridge._core._switching.CallbackBase",
    .basicsize = sizeof(Callback),
    .flags = FLAGS,
    .slots = callback_slots,
};

const char use_waits_doc[] = PyDoc_STR(
"use_waits(wait_class, hub_local, get_hub, blocking_place, getcurrent, /)\n--\n\n"
"Called once, by bridge._core.waiting.");

PyObject *
use_waits(PyObject *module, PyObject *args)
{
    PyObject *wait, *local, *hub, *place, *current;
    if (!PyArg_ParseTuple(args, "O!O!OOO:use_waits", &PyType_Type, &wait, hub_local_type, &local, &hub, &place,
                          &current)) {
        return NULL;
    }
    Py_XSETREF(wait_class, (PyTypeObject *)Py_NewRef(wait));
    Py_XSETREF(hub_local, Py_NewRef(local));
    Py_XSETREF(get_hub, Py_NewRef(hub));
    Py_XSETREF(blocking_place, Py_NewRef(place));
    Py_RETURN_NONE;
}

int
add_waits(PyObject *module)
{
    if (intern(&name_probe, "probe") < 0 || intern(&name_timeout, "timeout") < 0 || intern(&name_park, "park") < 0
        || intern(&name_block_for, "_block_for") < 0 || intern(&name_invalid, "_invalid") < 0
        || intern(&name_pause, "pause") < 0
        || intern(&name_awake, "awake") < 0) {
        return -1;
    }
    if (add_type(module, "WaitBase", &wait_spec, &wait_type) < 0) {
        return -1;
    }
    return add_type(module, "CallbackBase", &callback_spec, NULL);
}
