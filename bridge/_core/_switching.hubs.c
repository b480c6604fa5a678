/* The hub of the thread: the compiled twin of bridge._core.switching.HubLocal, and where the loop of a hub is. */

#include "_switching.parts.h"

/* The class of hubs, and where the slot "loop" is in them. */
static PyTypeObject *hub_class;
static Py_ssize_t loop_offset;

/* hub.loop, a new reference. */
PyObject *
loop_of(PyObject *hub)
{
    if (hub_class != NULL && PyObject_TypeCheck(hub, hub_class)) {
        PyObject *loop = *(PyObject **)((char *)hub + loop_offset);
        if (loop != NULL) {
            return Py_NewRef(loop);
        }
    }
    return PyObject_GetAttr(hub, name_loop);
}

typedef struct {
    PyObject_HEAD
    PyObject *local;    /* a threading.local that has the attribute hub */
    PyObject *hub;      /* the one of the thread below; borrowed: the local of that thread owns it */
    uint64_t thread;    /* the number of a thread, which no other ever has */
} HubLocal;

static int
hub_local_init(HubLocal *self, PyObject *args, PyObject *kwargs)
{
    PyObject *local;
    if (!PyArg_ParseTuple(args, "O:HubLocal", &local)) {
        return -1;
    }
    self->hub = NULL;
    Py_XSETREF(self->local, Py_NewRef(local));
    return 0;
}

/* A new reference. */
static PyObject *
hub_local_get(HubLocal *self, void *ignored)
{
    uint64_t thread = PyThreadState_GetID(PyThreadState_Get());
    if (self->hub != NULL && self->thread == thread) {
        return Py_NewRef(self->hub);
    }
    if (self->local == NULL) {
        PyErr_SetString(PyExc_AttributeError, "HubLocal.__init__() was not called");
        return NULL;
    }
    PyObject *hub = PyObject_GetAttr(self->local, name_hub);
    if (hub != NULL && hub != Py_None) {
        self->hub = hub;
        self->thread = thread;
    }
    return hub;
}

PyObject *
hub_here(PyObject *self)
{
    return hub_local_get((HubLocal *)self, NULL);
}

static int
hub_local_set(HubLocal *self, PyObject *hub, void *ignored)
{
    if (hub == NULL) {
        PyErr_SetString(PyExc_AttributeError, "hub cannot be deleted");
        return -1;
    }
    if (self->local == NULL) {
        PyErr_SetString(PyExc_AttributeError, "HubLocal.__init__() was not called");
        return -1;
    }
    self->hub = NULL;
    return PyObject_SetAttr(self->local, name_hub, hub);
}

PyDoc_STRVAR(forget_doc,
"forget($self, /)\n--\n\n"
"The hubs of this thread are about to go.");

static PyObject *
hub_local_forget(HubLocal *self, PyObject *ignored)
{
    self->hub = NULL;
    Py_RETURN_NONE;
}

static int
hub_local_traverse(HubLocal *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->local);
    return 0;
}

static int
hub_local_clear(HubLocal *self)
{
    self->hub = NULL;
    Py_CLEAR(self->local);
    return 0;
}

static PyMethodDef hub_local_methods[] = {
    {"forget", (PyCFunction)hub_local_forget, METH_NOARGS, forget_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef hub_local_getset[] = {
    {"hub", (getter)hub_local_get, (setter)hub_local_set, "The hub of the current thread, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

DEALLOC(hub_local, HubLocal)

static PyType_Slot hub_local_slots[] = {
    {Py_tp_doc, (void *)"The hub of each thread; see bridge._core.switching."},
    {Py_tp_init, hub_local_init},
    {Py_tp_traverse, hub_local_traverse},
    {Py_tp_clear, hub_local_clear},
    {Py_tp_dealloc, hub_local_dealloc},
    {Py_tp_methods, hub_local_methods},
    {Py_tp_getset, hub_local_getset},
    {0, NULL},
};

PyType_Spec hub_local_spec = {
    .name = "bridge._core._switching.HubLocal",
    .basicsize = sizeof(HubLocal),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = hub_local_slots,
};

const char use_hubs_doc[] = PyDoc_STR(
"use_hubs(hub_class, /)\n--\n\n"
"Called once, by bridge._core.hub.");

PyObject *
use_hubs(PyObject *module, PyObject *type)
{
    if (!PyType_Check(type)) {
        PyErr_SetString(PyExc_TypeError, "use_hubs() takes a class");
        return NULL;
    }
    if (find_slot((PyTypeObject *)type, "loop", T_OBJECT_EX, &loop_offset) < 0) {
        return NULL;
    }
    Py_XSETREF(hub_class, (PyTypeObject *)Py_NewRef(type));
    Py_RETURN_NONE;
}
