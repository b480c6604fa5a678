/* What every switch goes through: the compiled twin of bridge._core.switching, where the theory is.

   Each method does what the method of the same name does there, and nothing else. What is rare is done by calling
   the methods in Python: arm(), handle_error(), blocking_place() and the like.

   No method gives up the GIL, or calls anything that does, between a test and what depends on it: the promises that
   the Python twin keeps by the places where CPython changes threads hold here as well. */

#include "_switching.parts.h"

PyTypeObject *engine_type, *hub_local_type;

/* greenlet's C API, and the method that programs may override. */
static PyTypeObject *greenlet_type;
static PyObject *(*greenlet_switch)(PyObject *greenlet, PyObject *args, PyObject *kwargs);
PyObject *(*greenlet_current)(void);
static int (*greenlet_is_active)(PyObject *greenlet);
static PyObject *plain_switch;
static PyCFunction plain_function;

/* What the modules in Python tell us when they are loaded. */
PyTypeObject *callback_class;
static PyTypeObject *thrown_class;
static PyObject *greenlet_exit, *get_running;

/* For the other compiled modules, which may add to it. */
static SwitchingAPI api;

static PyObject *empty;
PyObject *name_popleft, *name_hub, *name_loop, *name_dead, *name_woken, *name_wake, *name_trim, *name_pop, *name_bury;
static PyObject *name_append, *name_appendleft, *name_switch, *name_arm, *name_armed, *name_ready,
    *name_exception, *name_drop_stale, *name_handle_error;

/* Which loop is running, as asyncio has it; a new reference. */
static PyObject *
running_loop(void)
{
    if (PyCFunction_CheckExact(get_running) && PyCFunction_GET_FLAGS(get_running) == METH_NOARGS) {
        return PyCFunction_GET_FUNCTION(get_running)(PyCFunction_GET_SELF(get_running), NULL);
    }
    return PyObject_CallNoArgs(get_running);
}

/* ---- the ready queue, and whoever is in it ------------------------------------------------------------------ */

int
append_ready(PyObject *engine, PyObject *item)
{
    if (PyObject_TypeCheck(engine, engine_type)) {
        Engine *e = (Engine *)engine;
        if (e->ready == NULL) {
            PyErr_SetString(PyExc_AttributeError, "ready");
            return -1;
        }
        return done_with(PyObject_CallMethodOneArg(e->ready, name_append, item)) < 0 ? -1 : e->armed;
    }
    /* a portal */
    PyObject *ready = PyObject_GetAttr(engine, name_ready);
    if (ready == NULL) {
        return -1;
    }
    int failed = done_with(PyObject_CallMethodOneArg(ready, name_append, item));
    Py_DECREF(ready);
    if (failed) {
        return -1;
    }
    PyObject *armed = PyObject_GetAttr(engine, name_armed);
    if (armed == NULL) {
        PyErr_Clear(); /* arm() will tell */
        return 0;
    }
    Py_DECREF(armed);
    return armed == Py_True;
}

int
arm(PyObject *engine)
{
    return done_with(PyObject_CallMethodNoArgs(engine, name_arm));
}

int
make_ready(PyObject *engine, PyObject *item)
{
    int armed = append_ready(engine, item);
    return armed ? (armed < 0 ? -1 : 0) : arm(engine);
}

/* Switch to an entry of the ready queue that is no callback. A method of its own is honoured; greenlet's is called by
   way of its C API, as each frame on the way there is kept, for as long as it is parked, with every greenlet. */
static PyObject *
switch_to(PyObject *entry, PyObject *args, PyObject *kwargs)
{
    PyTypeObject *type = Py_TYPE(entry);
    if (PyType_IsSubtype(type, greenlet_type) && _PyType_Lookup(type, name_switch) == plain_switch) {
        return greenlet_switch(entry, args, kwargs);
    }
    if (args == NULL) {
        return PyObject_CallMethodNoArgs(entry, name_switch);
    }
    PyObject *method = PyObject_GetAttr(entry, name_switch);
    if (method == NULL) {
        return NULL;
    }
    PyObject *came = PyObject_Call(method, args, kwargs);
    Py_DECREF(method);
    return came;
}

/* The same for what is bound to the greenlet that drains. args: NULL or a tuple. */
static PyObject *
switch_back(Engine *self, PyObject *args)
{
    PyObject *to_runner = self->to_runner;
    if (to_runner == NULL) {
        PyErr_SetString(PyExc_AttributeError, "to_runner");
        return NULL;
    }
    PyObject *came;
    if (PyCFunction_CheckExact(to_runner) && PyCFunction_GET_FUNCTION(to_runner) == plain_function) {
        PyObject *runner = Py_NewRef(PyCFunction_GET_SELF(to_runner));
        came = greenlet_switch(runner, args, NULL);
        Py_DECREF(runner);
    }
    else {
        Py_INCREF(to_runner);
        came = args == NULL ? PyObject_CallNoArgs(to_runner) : PyObject_Call(to_runner, args, NULL);
        Py_DECREF(to_runner);
    }
    return came;
}

/* Switch to an entry of the ready queue that is no callback. The reference is taken over, and it is not kept in the
   frame, which lasts until our own wait ends: a greenlet that has ended, and what its exception refers to, would last
   as long. Instead the engine has it until somebody else is switched to. (Once the stack has been switched, greenlet
   asks nothing more of what was switched to: see the end of its g_switch(). Where its assertions are compiled in, they
   do; there the frame does keep it.)

   What the engine had before may go now, and with it whatever its destructors do. They may block: others are switched
   to meanwhile, and the engine has those. */
static inline PyObject *
hand_over(Engine *self, PyObject *entry)
{
    do {
        Py_XSETREF(self->recent, Py_NewRef(entry));
    } while (self->recent != entry);
#ifdef NDEBUG
    Py_DECREF(entry);
    return switch_to(entry, NULL, NULL);
#else
    PyObject *came = switch_to(entry, NULL, NULL);
    Py_DECREF(entry);
    return came;
#endif
}

/* Take the first entry; NULL without an exception: there is none. A new reference. */
static PyObject *
take(Engine *self)
{
    PyObject *ready = self->ready;
    Py_ssize_t n = ready == NULL ? 0 : PyObject_Size(ready);
    if (n <= 0) {
        return NULL;
    }
    return PyObject_CallMethodNoArgs(ready, name_popleft);
}

/* What a wait in the ready queue stands for: its target, a new reference; NULL: its wake-up was taken back, or its greenlet
   is elsewhere. */
static PyObject *
target_of(PyObject *entry)
{
    Wait *wait = (Wait *)entry;
    wait->queued = 0;
    PyObject *target = wait->target;
    return wait->away || target == NULL || target == Py_None ? NULL : Py_NewRef(target);
}

/* Raise what was passed to a parked greenlet for it to raise. */
static void
raise_thrown(PyObject *thrown)
{
    PyObject *exception = PyObject_GetAttr(thrown, name_exception);
    if (exception == NULL) {
        return;
    }
    if (PyExceptionInstance_Check(exception)) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    }
    else if (PyExceptionClass_Check(exception)) {
        PyObject *instance = PyObject_CallNoArgs(exception);
        if (instance != NULL) {
            if (PyExceptionInstance_Check(instance)) {
                PyErr_SetObject((PyObject *)Py_TYPE(instance), instance);
            }
            else {
                PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
            }
            Py_DECREF(instance);
        }
    }
    else {
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
    }
    Py_DECREF(exception);
}

static int
is_current(PyObject *greenlet)
{
    PyObject *current = greenlet_current();
    Py_XDECREF(current);
    return current == greenlet;
}

int
doze_for(Engine *self, PyObject *wait, double limit)
{
    Py_ssize_t waiting = self->ready == NULL || self->turns <= 0 || api.doze == NULL ? 1 : PyObject_Size(self->ready);
    int dozed = waiting < 0 ? -1 : waiting > 0 ? 0 : api.doze(self, limit);
    if (dozed <= 0) {
        return dozed;
    }
    PyObject *entry = take(self);
    if (entry == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    if (entry == wait) {
        Py_DECREF(entry);
        ((Wait *)wait)->queued = 0;
        self->turns--;
        return 1;
    }
    int failed = done_with(PyObject_CallMethodOneArg(self->ready, name_appendleft, entry));
    Py_DECREF(entry);
    return failed;
}

/* What a parked greenlet was switched to with. Takes over the reference. */
static PyObject *
arrived(PyObject *came)
{
    if (came != NULL && came != empty && Py_TYPE(came) == thrown_class) {
        raise_thrown(came);
        Py_CLEAR(came);
    }
    return came;
}

PyObject *
engine_yield(Engine *self)
{
    return arrived(switch_back(self, NULL));
}

PyDoc_STRVAR(park_doc,
"park($self, /)\n--\n\n"
"Give the thread to others until somebody switches back; the heart of every wait.");

PyObject *
engine_park(Engine *self, PyObject *ignored)
{
    PyObject *came = NULL;
    int dozed = 0;
    for (;;) {
        PyObject *entry = self->turns > 0 ? take(self) : NULL;
        if (entry == NULL) {
            if (PyErr_Occurred()) {
                return NULL;
            }
            dozed = self->turns > 0 && api.doze != NULL ? api.doze(self, -1) : 0;
            if (dozed < 0) {
                return NULL;
            }
            if (dozed) {
                continue;
            }
            came = switch_back(self, NULL);
            break;
        }
        if (Py_TYPE(entry) == wait_class) {
            PyObject *target = target_of(entry);
            Py_DECREF(entry);
            if (target == NULL) {
                continue;
            }
            entry = target;
            if (dozed && is_current(entry)) {
                Py_DECREF(entry);
                self->turns--;
                return Py_NewRef(empty);
            }
        }
        else if (!PyObject_TypeCheck(entry, greenlet_type)) {
            /* callbacks, and exceptions that are to be delivered: those are for the hub */
            PyObject *result = PyObject_CallMethodOneArg(self->ready, name_appendleft, entry);
            Py_DECREF(entry);
            if (result == NULL) {
                return NULL;
            }
            Py_DECREF(result);
            came = switch_back(self, NULL);
            break;
        }
        self->turns--;
        came = hand_over(self, entry);
        break;
    }
    return arrived(came);
}

/* Hand the current exception to handle_error(), as an except clause would; 0, or -1: it, or what that raises, is to go
   on. */
static int
handle_error(PyObject *self, PyObject *context)
{
    PyObject *type, *value, *tb, *before_type, *before_value, *before_tb;
    PyErr_Fetch(&type, &value, &tb);
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        PyException_SetTraceback(value, tb);
    }
    PyErr_GetExcInfo(&before_type, &before_value, &before_tb);
    PyErr_SetExcInfo(Py_NewRef(type), Py_NewRef(value), Py_XNewRef(tb));
    PyObject *result = PyObject_CallMethodObjArgs(
        self, name_handle_error, context, type, value, tb == NULL ? Py_None : tb, NULL);
    PyErr_SetExcInfo(before_type, before_value, before_tb);
    Py_DECREF(type);
    Py_DECREF(value);
    Py_XDECREF(tb);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

/* Run the handlers of signals, as whoever sleeps in the hub would; 0, or -1 if what one has raised is to end the drain
   as well. */
static int
run_handlers(Engine *self)
{
    self->interrupted = 0;
    if (PyErr_CheckSignals() == 0) {
        return 0;
    }
    return PyErr_ExceptionMatches(PyExc_Exception) ? handle_error((PyObject *)self, Py_None) : -1;
}

/* Call one Callback of the ready queue; 0, or -1 with an exception. */
static int
run_callback(PyObject *self, Callback *entry)
{
    int failed = 0;
    PyObject *callback = entry->callback;
    if (callback != NULL && callback != Py_None) {
        entry->callback = Py_NewRef(Py_None);
        PyObject *args = Py_XNewRef(entry->args);
        PyObject *result = NULL;
        if (args != NULL && PyTuple_CheckExact(args)) {
            result = PyTuple_GET_SIZE(args) == 0 ? PyObject_CallNoArgs(callback)
                                                 : PyObject_Call(callback, args, NULL);
        }
        else {
            PyErr_SetString(PyExc_TypeError, "the arguments of a callback must be a tuple");
        }
        Py_XDECREF(args);
        Py_DECREF(callback);
        if (result != NULL) {
            Py_DECREF(result);
        }
        else {
            failed = handle_error(self, (PyObject *)entry);
            if (failed) {
                return -1;
            }
        }
    }
    PyObject *args = entry->args;
    entry->args = Py_NewRef(Py_None);
    Py_XDECREF(args);
    return 0;
}

PyDoc_STRVAR(run_ready_doc,
"run_ready($self, /)\n--\n\n"
"In the hub: run what is ready until the turns are used up or nothing is ready.");

static PyObject *
engine_run_ready(Engine *self, PyObject *ignored)
{
    while (self->turns > 0) {
        PyObject *entry = take(self);
        if (entry == NULL) {
            if (PyErr_Occurred()) {
                return NULL;
            }
            break;
        }
        self->turns--;
        if (Py_TYPE(entry) == callback_class) {
            int failed = run_callback((PyObject *)self, (Callback *)entry);
            Py_DECREF(entry);
            if (failed) {
                return NULL;
            }
            continue;
        }
        if (Py_TYPE(entry) == wait_class) {
            PyObject *target = target_of(entry);
            Py_DECREF(entry);
            if (target == NULL) {
                continue;
            }
            entry = target;
        }
        else if (self->stale != NULL && PyDict_Size(self->stale) > 0) {
            int cancelled = PyDict_Contains(self->stale, entry);
            PyObject *result = NULL;
            if (cancelled > 0) {
                result = PyObject_CallMethodOneArg((PyObject *)self, name_drop_stale, entry);
            }
            if (cancelled < 0 || (cancelled > 0 && result == NULL)) {
                Py_DECREF(entry);
                return NULL;
            }
            if (cancelled) {
                Py_DECREF(result);
                Py_DECREF(entry);
                continue;
            }
        }
        PyObject *result = hand_over(self, entry);
        /* who has come back to us is the last of those who have handed over to one another */
        PyObject *last = self->recent;
        self->recent = NULL;
        int failed = 0;
        if (result != NULL) {
            Py_DECREF(result);
        }
        else {
            /* GreenletExit: the hub is to end */
            failed = PyErr_ExceptionMatches(greenlet_exit)
                     || handle_error((PyObject *)self, last == NULL ? Py_None : last) < 0;
        }
        Py_XDECREF(last);
        if (failed || (self->interrupted && run_handlers(self) < 0)) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(call_doc,
"call($self, callback, /, *args)\n--\n\n"
"Have the hub call ``callback(*args)`` after what is ready now. This thread only.");

static PyObject *
engine_call(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1) {
        PyErr_SetString(PyExc_TypeError, "call() missing the callback");
        return NULL;
    }
    PyObject *rest = empty;
    if (nargs == 1) {
        Py_INCREF(rest);
    }
    else {
        rest = PyTuple_New(nargs - 1);
        if (rest == NULL) {
            return NULL;
        }
        for (Py_ssize_t i = 1; i < nargs; i++) {
            PyTuple_SET_ITEM(rest, i - 1, Py_NewRef(args[i]));
        }
    }
    Callback *made = (Callback *)callback_class->tp_alloc(callback_class, 0);
    if (made == NULL) {
        Py_DECREF(rest);
        return NULL;
    }
    made->callback = Py_NewRef(args[0]);
    made->args = rest;
    if (make_ready(self, (PyObject *)made) < 0) {
        Py_DECREF(made);
        return NULL;
    }
    return (PyObject *)made;
}

PyDoc_STRVAR(run_callback_doc,
"run_callback($self, func, /, *args)\n--\n\n"
"Call ``func(*args)`` in the hub, after what is ready now. Not from other threads.");

static PyObject *
engine_run_callback(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs > 0 && !PyCallable_Check(args[0])) {
        PyErr_Format(PyExc_TypeError, "Expected callable, not %R", args[0]);
        return NULL;
    }
    return engine_call(self, args, nargs);
}

PyDoc_STRVAR(probe_doc,
"probe($self, /)\n--\n\n"
"None if greenlets run at the moment, so that the current one may block. Else the loop that runs, or, for an adopted\n"
"loop that has ended, something else.");

PyObject *
engine_probe(Engine *self, PyObject *ignored)
{
    PyObject *running = running_loop();
    if (running == Py_None && !self->owned && !self->draining) {
        Py_DECREF(running);
        return Py_NewRef((PyObject *)self);
    }
    return running;
}

static int
engine_traverse(Engine *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->ready);
    Py_VISIT(self->to_runner);
    Py_VISIT(self->recent);
    Py_VISIT(self->stale);
    Py_VISIT(self->aio);
    Py_VISIT(self->heap);
    Py_VISIT(self->before);
    Py_VISIT(self->after);
    Py_VISIT(self->on_idle);
    Py_VISIT(self->entered);
    Py_VISIT(self->context);
    Py_VISIT(self->edges);
    return 0;
}

static int
engine_clear(Engine *self)
{
    Py_CLEAR(self->ready);
    Py_CLEAR(self->to_runner);
    Py_CLEAR(self->recent);
    Py_CLEAR(self->stale);
    Py_CLEAR(self->aio);
    Py_CLEAR(self->heap);
    Py_CLEAR(self->before);
    Py_CLEAR(self->after);
    Py_CLEAR(self->on_idle);
    Py_CLEAR(self->entered);
    Py_CLEAR(self->context);
    Py_CLEAR(self->edges);
    return 0;
}

static PyMethodDef engine_methods[] = {
    {"park", (PyCFunction)engine_park, METH_NOARGS, park_doc},
    {"run_ready", (PyCFunction)engine_run_ready, METH_NOARGS, run_ready_doc},
    {"call", (PyCFunction)(void (*)(void))engine_call, METH_FASTCALL, call_doc},
    {"call_at", (PyCFunction)(void (*)(void))engine_call_at, METH_FASTCALL | METH_KEYWORDS, call_at_doc},
    {"cancel", (PyCFunction)engine_cancel, METH_O, cancel_doc},
    {"expire", (PyCFunction)engine_expire, METH_O, expire_doc},
    {"run_callback", (PyCFunction)(void (*)(void))engine_run_callback, METH_FASTCALL, run_callback_doc},
    {"probe", (PyCFunction)engine_probe, METH_NOARGS, probe_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef engine_members[] = {
    {"ready", T_OBJECT_EX, offsetof(Engine, ready), 0, NULL},
    {"to_runner", T_OBJECT_EX, offsetof(Engine, to_runner), 0, NULL},
    {"stale", T_OBJECT_EX, offsetof(Engine, stale), 0, NULL},
    {"aio", T_OBJECT_EX, offsetof(Engine, aio), 0, NULL},
    {"heap", T_OBJECT_EX, offsetof(Engine, heap), 0, NULL},
    {"before", T_OBJECT_EX, offsetof(Engine, before), 0, NULL},
    {"after", T_OBJECT_EX, offsetof(Engine, after), 0, NULL},
    {"on_idle", T_OBJECT_EX, offsetof(Engine, on_idle), 0, NULL},
    {"entered", T_OBJECT_EX, offsetof(Engine, entered), 0, NULL},
    {"_context", T_OBJECT_EX, offsetof(Engine, context), 0, NULL},
    {"edges", T_OBJECT_EX, offsetof(Engine, edges), 0, NULL},
    {"turns", T_PYSSIZET, offsetof(Engine, turns), 0, NULL},
    {"_cancelled", T_PYSSIZET, offsetof(Engine, cancelled), 0, NULL},
    {"refs", T_PYSSIZET, offsetof(Engine, refs), 0, NULL},
    {"armed", T_BOOL, offsetof(Engine, armed), 0, NULL},
    {"draining", T_BOOL, offsetof(Engine, draining), 0, NULL},
    {"stopping", T_BOOL, offsetof(Engine, stopping), 0, NULL},
    {"owned", T_BOOL, offsetof(Engine, owned), 0, NULL},
    {"shared", T_BOOL, offsetof(Engine, shared), 0, NULL},
    {"running", T_BOOL, offsetof(Engine, running), 0, NULL},
    {"_asked", T_BOOL, offsetof(Engine, asked), 0, NULL},
    {"_asked_before", T_BOOL, offsetof(Engine, asked_before), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* ---- the module --------------------------------------------------------------------------------------------- */

DEALLOC(engine, Engine)

static PyType_Slot engine_slots[] = {
    {Py_tp_doc, (void *)"The quick half of an engine; see bridge._core.switching."},
    {Py_tp_traverse, engine_traverse},
    {Py_tp_clear, engine_clear},
    {Py_tp_dealloc, engine_dealloc},
    {Py_tp_methods, engine_methods},
    {Py_tp_members, engine_members},
    {0, NULL},
};

static PyType_Spec engine_spec = {
    .name = "bridge._core._switching.EngineBase",
    .basicsize = sizeof(Engine),
    .flags = FLAGS,
    .slots = engine_slots,
};

PyDoc_STRVAR(use_engines_doc,
"use_engines(callback_class, thrown_class, greenlet_exit, /)\n--\n\n"
"Called once, by bridge._core.engine.");

static PyObject *
use_engines(PyObject *module, PyObject *args)
{
    PyObject *callback, *thrown, *exit;
    if (!PyArg_ParseTuple(args, "O!O!O:use_engines", &PyType_Type, &callback, &PyType_Type, &thrown, &exit)) {
        return NULL;
    }
    Py_XSETREF(callback_class, (PyTypeObject *)Py_NewRef(callback));
    Py_XSETREF(thrown_class, (PyTypeObject *)Py_NewRef(thrown));
    Py_XSETREF(greenlet_exit, Py_NewRef(exit));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(use_running_doc,
"use_running(get_running, /)\n--\n\n"
"Called when an engine is made, by bridge._core.engine.");

static PyObject *
use_running(PyObject *module, PyObject *function)
{
    Py_XSETREF(get_running, Py_NewRef(function));
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"use_hubs", use_hubs, METH_O, use_hubs_doc},
    {"use_engines", use_engines, METH_VARARGS, use_engines_doc},
    {"use_running", use_running, METH_O, use_running_doc},
    {"use_waits", use_waits, METH_VARARGS, use_waits_doc},
    {"use_waiters", use_waiters, METH_O, use_waiters_doc},
    {NULL, NULL, 0, NULL},
};

/* The places in the table are those of greenlet.h, which is not needed for building that way. */
static int
use_greenlet(void)
{
    void **table = (void **)PyCapsule_Import("greenlet._C_API", 0);
    if (table == NULL) {
        return -1;
    }
    greenlet_type = (PyTypeObject *)table[0];
    *(void **)&greenlet_current = table[4];
    *(void **)&greenlet_switch = table[6];
    *(void **)&greenlet_is_active = table[10];
    PyObject *method = PyObject_GetAttr((PyObject *)greenlet_type, name_switch);
    if (method == NULL) {
        return -1;
    }
    if (Py_TYPE(method) != &PyMethodDescr_Type) {
        Py_DECREF(method);
        PyErr_SetString(PyExc_ImportError, "greenlet.switch is not the method that was expected");
        return -1;
    }
    plain_function = ((PyMethodDescrObject *)method)->d_method->ml_meth;
    Py_XSETREF(plain_switch, method);
    return 0;
}

static int
add_api(PyObject *module)
{
    api.size = sizeof(SwitchingAPI);
    api.engine_type = engine_type;
    api.wait_type = wait_type;
    api.hub_local_type = hub_local_type;
    api.greenlet_type = greenlet_type;
    api.switch_method = plain_switch;
    api.current = greenlet_current;
    api.is_active = greenlet_is_active;
    api.hub_here = hub_here;
    api.loop_of = loop_of;
    api.switch_to = switch_to;
    api.switch_plainly = greenlet_switch;
    api.switch_back = switch_back;
    api.park = engine_park;
    api.probe = engine_probe;
    api.make_ready = make_ready;
    api.wake = wake;
    api.over = over_wait;
    PyObject *capsule = PyCapsule_New(&api, SWITCHING_API, NULL);
    if (capsule == NULL) {
        return -1;
    }
    int failed = PyModule_AddObjectRef(module, "_C_API", capsule);
    Py_DECREF(capsule);
    return failed;
}

static int
execute(PyObject *module)
{
    if (claim_for_interpreter() < 0 || (empty == NULL && (empty = PyTuple_New(0)) == NULL)) {
        return -1;
    }
    if (intern(&name_append, "append") < 0 || intern(&name_appendleft, "appendleft") < 0
        || intern(&name_popleft, "popleft") < 0 || intern(&name_switch, "switch") < 0
        || intern(&name_arm, "arm") < 0 || intern(&name_armed, "armed") < 0 || intern(&name_ready, "ready") < 0
        || intern(&name_hub, "hub") < 0 || intern(&name_loop, "loop") < 0 
        || intern(&name_exception, "exception") < 0 || intern(&name_drop_stale, "_drop_stale") < 0
        || intern(&name_handle_error, "handle_error") < 0 || intern(&name_dead, "dead") < 0
        || intern(&name_woken, "woken") < 0 || intern(&name_wake, "wake") < 0 || intern(&name_trim, "trim") < 0
        || intern(&name_pop, "pop") < 0 || intern(&name_bury, "_bury") < 0) {
        return -1;
    }
    if (use_greenlet() < 0 || prepare_timers() < 0) {
        return -1;
    }
    if (add_type(module, "EngineBase", &engine_spec, &engine_type) < 0
        || add_type(module, "HubLocal", &hub_local_spec, &hub_local_type) < 0 || add_waits(module) < 0
        || add_waiters(module) < 0 || add_line(module) < 0) {
        return -1;
    }
    return add_api(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bridge._core._switching",
    .m_doc = "What every switch goes through, compiled.",
    .m_size = 0,
    .m_methods = module_methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__switching(void)
{
    return PyModuleDef_Init(&definition);
}
