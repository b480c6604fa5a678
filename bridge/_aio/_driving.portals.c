/* The steps of portals: the compiled twin of bridge._aio.stepping. */

#include "_driving.parts.h"

static PyObject *name_prepare, *name_exception, *name_throw;

typedef struct {
    PyObject_HEAD
    PyObject *coroutine;
    PyObject *greenlet;     /* in which the coroutine runs; made by the first step */
    PyObject *inside;       /* who is to be switched to by the next step */
    PyObject *runner;       /* who has made the last step */
    PyObject *result;       /* what the coroutine has ended with */
    PyObject *interruption; /* what the next step is to raise inside, whatever it sends */
    char finished;
} Portal;

static PyTypeObject *thrown_class;
static PyObject *ended, *none_args;

static int
portal_init(Portal *self, PyObject *args, PyObject *kwargs)
{
    PyObject *coroutine;
    if (!PyArg_ParseTuple(args, "O:PortalBase", &coroutine)) {
        return -1;
    }
    set_slot(&self->coroutine, coroutine);
    set_slot(&self->greenlet, Py_None);
    set_slot(&self->inside, Py_None);
    set_slot(&self->runner, Py_None);
    set_slot(&self->result, Py_None);
    set_slot(&self->interruption, Py_None);
    self->finished = 0;
    return 0;
}

/* Switch to a greenlet and pass it one object. */
static PyObject *
pass(PyObject *(*switch_to)(PyObject *, PyObject *, PyObject *), PyObject *g, PyObject *value)
{
    if (value == Py_None) {
        return switch_to(g, none_args, NULL);
    }
    PyObject *args = PyTuple_Pack(1, value);
    if (args == NULL) {
        return NULL;
    }
    PyObject *came = switch_to(g, args, NULL);
    Py_DECREF(args);
    return came;
}

static PySendResult
portal_am_send(PyObject *object, PyObject *value, PyObject **out)
{
    Portal *self = (Portal *)object;
    *out = NULL;
    if (is_new(PORTALS)) {
        return PYGEN_ERROR;
    }
    PyObject *current = api->current();
    if (current == NULL) {
        return PYGEN_ERROR;
    }
    if (current != self->runner || self->interruption != Py_None) {
        value = PyObject_CallMethodObjArgs(object, name_prepare, current, value, NULL);
    }
    else {
        Py_INCREF(value);
    }
    Py_DECREF(current);
    if (value == NULL) {
        return PYGEN_ERROR;
    }
    if (self->inside == NULL) {
        Py_DECREF(value);
        PyErr_SetString(PyExc_AttributeError, "_inside");
        return PYGEN_ERROR;
    }
    PyObject *inside = Py_NewRef(self->inside);
    PyObject *yielded = pass(api->switch_to, inside, value);
    Py_DECREF(inside);
    Py_DECREF(value);
    if (yielded != ended) {
        *out = yielded;
        return yielded == NULL ? PYGEN_ERROR : PYGEN_NEXT;
    }
    Py_DECREF(yielded);
    self->finished = 1;
    set_slot(&self->inside, Py_None); /* another step is refused */
    set_slot(&self->runner, Py_None);
    PyObject *result = self->result == NULL ? Py_NewRef(Py_None) : self->result;
    self->result = Py_NewRef(Py_None);
    if (Py_TYPE(result) != thrown_class) {
        *out = result;
        return PYGEN_RETURN;
    }
    PyObject *exception = PyObject_GetAttr(result, name_exception);
    Py_DECREF(result);
    if (exception != NULL) {
        raise(exception);
        Py_DECREF(exception);
    }
    return PYGEN_ERROR;
}

PyDoc_STRVAR(portal_send_doc,
"send($self, value, /)\n--\n\n"
"One step, by the task. What comes out is what the coroutine, or the code below it, waits for.");

static PyObject *
portal_send(PyObject *self, PyObject *value)
{
    PyObject *out;
    if (portal_am_send(self, value, &out) == PYGEN_RETURN) {
        /* as a generator does: a tuple or an exception is not to be taken for the arguments */
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, out);
        Py_CLEAR(out);
        if (stop != NULL) {
            raise(stop);
            Py_DECREF(stop);
        }
    }
    return out;
}

PyDoc_STRVAR(portal_leave_doc,
"_leave($self, value, /)\n--\n\n"
"Inside: pass ``value`` to who made the step; returns what the next one sends.");

static PyObject *
portal_leave(Portal *self, PyObject *value)
{
    if (self->runner == NULL || !PyObject_TypeCheck(self->runner, api->greenlet_type)) {
        PyErr_SetString(PyExc_RuntimeError, "a portal that has not begun cannot yield");
        return NULL;
    }
    PyObject *runner = Py_NewRef(self->runner);
    /* not by a method of the runner's own: the hub's makes checks that are for others */
    PyObject *came = pass(api->switch_plainly, runner, value);
    Py_DECREF(runner);
    return came;
}

PyDoc_STRVAR(portal_drive_doc,
"_drive($self, message, /)\n--\n\n"
"In the portal's greenlet: drive the coroutine; what it yields goes to who made the step.");

static PyObject *
portal_drive(Portal *self, PyObject *message)
{
    if (is_new(PORTALS)) {
        return NULL;
    }
    if (self->coroutine == NULL) {
        PyErr_SetString(PyExc_AttributeError, "coroutine");
        return NULL;
    }
    PyObject *coroutine = Py_NewRef(self->coroutine);
    PyObject *result = NULL;
    Py_INCREF(message);
    for (;;) {
        PyObject *out = NULL;
        if (Py_TYPE(message) == thrown_class) {
            PyObject *exception = PyObject_GetAttr(message, name_exception);
            if (exception != NULL) {
                out = PyObject_CallMethodOneArg(coroutine, name_throw, exception);
                Py_DECREF(exception);
            }
            Py_CLEAR(message); /* the exception's traceback refers to the frames inside */
            if (out == NULL && PyErr_ExceptionMatches(PyExc_StopIteration)) {
                PyObject *stop = take_exception();
                result = ((PyStopIterationObject *)stop)->value;
                result = Py_NewRef(result == NULL ? Py_None : result);
                Py_DECREF(stop);
                break;
            }
        }
        else {
            PySendResult sent = PyIter_Send(coroutine, message, &out);
            Py_CLEAR(message);
            if (sent == PYGEN_RETURN) {
                result = out;
                break;
            }
        }
        if (out != NULL) {
            message = portal_leave(self, out);
            Py_DECREF(out);
            if (message != NULL) {
                continue;
            }
        }
        PyObject *error = take_exception();
        result = PyObject_CallOneArg((PyObject *)thrown_class, error);
        Py_DECREF(error);
        break;
    }
    Py_DECREF(coroutine);
    if (result == NULL) {
        return NULL;
    }
    Py_XSETREF(self->result, result);
    return Py_NewRef(ended);
}

static int
portal_traverse(Portal *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->coroutine);
    Py_VISIT(self->greenlet);
    Py_VISIT(self->inside);
    Py_VISIT(self->runner);
    Py_VISIT(self->result);
    Py_VISIT(self->interruption);
    return 0;
}

static int
portal_clear(Portal *self)
{
    Py_CLEAR(self->coroutine);
    Py_CLEAR(self->greenlet);
    Py_CLEAR(self->inside);
    Py_CLEAR(self->runner);
    Py_CLEAR(self->result);
    Py_CLEAR(self->interruption);
    return 0;
}

DEALLOC(portal, Portal)

static PyMethodDef portal_methods[] = {
    {"send", portal_send, METH_O, portal_send_doc},
    {"_drive", (PyCFunction)portal_drive, METH_O, portal_drive_doc},
    {"_leave", (PyCFunction)portal_leave, METH_O, portal_leave_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef portal_members[] = {
    {"coroutine", T_OBJECT_EX, offsetof(Portal, coroutine), 0, NULL},
    {"_greenlet", T_OBJECT_EX, offsetof(Portal, greenlet), 0, NULL},
    {"_inside", T_OBJECT_EX, offsetof(Portal, inside), 0, NULL},
    {"_runner", T_OBJECT_EX, offsetof(Portal, runner), 0, NULL},
    {"_result", T_OBJECT_EX, offsetof(Portal, result), 0, NULL},
    {"_interruption", T_OBJECT_EX, offsetof(Portal, interruption), 0, NULL},
    {"_finished", T_BOOL, offsetof(Portal, finished), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot portal_slots[] = {
    {Py_tp_doc, (void *)"Runs a coroutine in a greenlet, step by step; see bridge._aio.stepping."},
    {Py_tp_init, portal_init},
    {Py_tp_traverse, portal_traverse},
    {Py_tp_clear, portal_clear},
    {Py_tp_dealloc, portal_dealloc},
    {Py_tp_methods, portal_methods},
    {Py_tp_members, portal_members},
    {Py_am_send, portal_am_send},
    {0, NULL},
};

static PyType_Spec portal_spec = {
    .name = "bridge._aio._driving.PortalBase",
    .basicsize = sizeof(Portal),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = portal_slots,
};

PyDoc_STRVAR(use_portals_doc,
"use_portals(thrown_class, /)\n--\n\n"
"Called once, by bridge._aio.stepping.");

static PyObject *
use_portals(PyObject *module, PyObject *type)
{
    if (!PyType_Check(type)) {
        PyErr_SetString(PyExc_TypeError, "use_portals(): a class is needed");
        return NULL;
    }
    keep((PyObject **)&thrown_class, type);
    known |= PORTALS;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"use_portals", use_portals, METH_O, use_portals_doc},
    {NULL, NULL, 0, NULL},
};

static const struct name names[] = {
    {&name_prepare, "_prepare"},
    {&name_exception, "exception"},
    {&name_throw, "throw"},
};

int
add_portals(PyObject *module)
{
    if (intern_names(names, Py_ARRAY_LENGTH(names)) < 0) {
        return -1;
    }
    if (none_args == NULL && (none_args = PyTuple_Pack(1, Py_None)) == NULL) {
        return -1;
    }
    if (ended == NULL && (ended = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type)) == NULL) {
        return -1;
    }
    if (add_type(module, "PortalBase", &portal_spec, NULL) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}
