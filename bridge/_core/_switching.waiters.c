/* A value that the hub hands to one greenlet: the compiled twin of bridge._core.switching.WaiterBase. */

#include "_switching.parts.h"

static PyObject *unset; /* what stands for "nothing yet" */
static PyObject *name_heir, *name_switch_out, *name_hand_over, *name_get, *name_value;

typedef struct {
    PyObject_HEAD
    PyObject *hub;
    PyObject *greenlet;  /* who waits, or None */
    PyObject *value;
    PyObject *exception; /* None: there is a value */
} Waiter;

static int
waiter_init(Waiter *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"hub", NULL};
    PyObject *hub = Py_None;
    if ((PyTuple_GET_SIZE(args) != 0 || kwargs != NULL)
        && !PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Waiter", names, &hub)) {
        return -1;
    }
    if (unset == NULL || get_hub == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "bridge._core.waiter has not been imported");
        return -1;
    }
    hub = hub == Py_None ? PyObject_CallNoArgs(get_hub) : Py_NewRef(hub); /* it adopts the loop that runs */
    if (hub == NULL) {
        return -1;
    }
    Py_XSETREF(self->hub, hub);
    Py_XSETREF(self->greenlet, Py_NewRef(Py_None));
    Py_XSETREF(self->value, Py_NewRef(Py_None));
    Py_XSETREF(self->exception, Py_NewRef(unset));
    return 0;
}

PyDoc_STRVAR(switch_doc,
"switch($self, value)\n--\n\n"
"Hand ``value`` to the greenlet that waits in get(), or keep it. In the hub.");

static PyObject *
waiter_switch(Waiter *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (nargs + named != 1 || (named && PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), name_value) != 0)) {
        PyErr_SetString(PyExc_TypeError, "switch() takes one argument, value");
        return NULL;
    }
    PyObject *value = args[0];
    if (self->greenlet == Py_None) {
        Py_XSETREF(self->value, Py_NewRef(value));
        Py_XSETREF(self->exception, Py_NewRef(Py_None));
        Py_RETURN_NONE;
    }
    return PyObject_CallMethodOneArg((PyObject *)self, name_hand_over, value);
}

/* The engine in which the current greenlet may park to wait for us; a new reference, NULL without an exception: see to
   it in Python. */
static PyObject *
place_of(Waiter *self, PyObject *current)
{
    if (self->hub == NULL || self->hub == Py_None || self->hub == current
        || PyObject_HasAttr(current, name_switch_out)) {
        return NULL;
    }
    PyObject *heir = PyObject_GetAttr(self->hub, name_heir);
    if (done_with(heir) < 0 || heir != Py_None) {
        PyErr_Clear(); /* no hub */
        return NULL;
    }
    PyObject *loop = loop_of(self->hub);
    if (loop == NULL) {
        PyErr_Clear();
        return NULL;
    }
    if (PyObject_TypeCheck(loop, engine_type)) {
        PyObject *running = engine_probe((Engine *)loop, NULL);
        if (running == Py_None) {
            Py_DECREF(running);
            return loop;
        }
        if (running == NULL) {
            PyErr_Clear();
        }
        Py_XDECREF(running);
    }
    Py_DECREF(loop);
    return NULL;
}

PyDoc_STRVAR(get_doc,
"get($self, /)\n--\n\n"
"Wait for the value and return it, or raise the exception. Blocks the greenlet.\n\n"
"ConcurrentObjectUseError if another greenlet waits already.");

static PyObject *
waiter_get(Waiter *self, PyObject *ignored)
{
    if (self->exception == Py_None && self->value != NULL) {
        return Py_NewRef(self->value);
    }
    PyObject *current = self->exception == unset && self->greenlet == Py_None ? greenlet_current() : NULL;
    PyObject *engine = current == NULL ? NULL : place_of(self, current);
    if (engine == NULL) {
        Py_XDECREF(current);
        return PyObject_CallMethodNoArgs((PyObject *)self, name_get);
    }
    Py_SETREF(self->greenlet, current);
    PyObject *came = engine_park((Engine *)engine, NULL);
    Py_XSETREF(self->greenlet, Py_NewRef(Py_None));
    Py_DECREF(engine);
    return came;
}

static int
waiter_traverse(Waiter *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->hub);
    Py_VISIT(self->greenlet);
    Py_VISIT(self->value);
    Py_VISIT(self->exception);
    return 0;
}

static int
waiter_clear(Waiter *self)
{
    Py_CLEAR(self->hub);
    Py_CLEAR(self->greenlet);
    Py_CLEAR(self->value);
    Py_CLEAR(self->exception);
    return 0;
}

static PyMethodDef waiter_methods[] = {
    {"switch", (PyCFunction)(void (*)(void))waiter_switch, METH_FASTCALL | METH_KEYWORDS, switch_doc},
    {"get", (PyCFunction)waiter_get, METH_NOARGS, get_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef waiter_members[] = {
    {"hub", T_OBJECT_EX, offsetof(Waiter, hub), 0, NULL},
    {"greenlet", T_OBJECT_EX, offsetof(Waiter, greenlet), 0, NULL},
    {"value", T_OBJECT_EX, offsetof(Waiter, value), 0, NULL},
    {"_exception", T_OBJECT_EX, offsetof(Waiter, exception), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

DEALLOC(waiter, Waiter)

static PyType_Slot waiter_slots[] = {
    {Py_tp_doc, (void *)"The quick half of a Waiter; see bridge._core.switching."},
    {Py_tp_init, waiter_init},
    {Py_tp_traverse, waiter_traverse},
    {Py_tp_clear, waiter_clear},
    {Py_tp_dealloc, waiter_dealloc},
    {Py_tp_methods, waiter_methods},
    {Py_tp_members, waiter_members},
    {0, NULL},
};

static PyType_Spec waiter_spec = {
    .name = "bridge._core._switching.WaiterBase",
    .basicsize = sizeof(Waiter),
    .flags = FLAGS,
    .slots = waiter_slots,
};

const char use_waiters_doc[] = PyDoc_STR(
"use_waiters(unset, /)\n--\n\n"
"Called once, by bridge._core.waiter.");

PyObject *
use_waiters(PyObject *module, PyObject *object)
{
    Py_XSETREF(unset, Py_NewRef(object));
    Py_RETURN_NONE;
}

int
add_waiters(PyObject *module)
{
    if (intern(&name_heir, "_heir") < 0 || intern(&name_switch_out, "switch_out") < 0
        || intern(&name_hand_over, "_hand_over") < 0 || intern(&name_get, "_get") < 0
        || intern(&name_value, "value") < 0) {
        return -1;
    }
    return add_type(module, "WaiterBase", &waiter_spec, NULL);
}
