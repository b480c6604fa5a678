/* Access to the attributes of locals: the compiled twin of bridge.local.LocalBase; the theory is there.

   What a greenlet's first use of a local needs is done by the functions in Python. A class's data descriptors are
   found the way CPython finds them, in its cache for types, so nothing has to be known of a class beforehand.

   The values are held while anything is called: a descriptor, or a name that is no plain str, may end the greenlet's
   part in the local. */

#include "_compiled.h"
#include "_switching.h"

typedef struct {
    PyObject_HEAD
    PyObject *state; /* what it has in every greenlet */
    PyObject *dicts; /* state.dicts: the values, by the key of the greenlet */
    PyObject *weakrefs;
} Local;

static SwitchingAPI *api;
static Py_ssize_t greenlet_dict; /* where greenlets have their dictionary */
static PyObject *first_use, *no_attribute, *read_only; /* what bridge.local tells us when it is loaded */
static PyObject *name_key, *name_dict;

/* The current greenlet's values, a new reference. */
static PyObject *
values_of(Local *self)
{
    PyObject *greenlet = api->current();
    if (greenlet == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError, "there is no current greenlet any more");
        }
        return NULL;
    }
    PyObject *values = NULL;
    PyObject *namespace = *(PyObject **)((char *)greenlet + greenlet_dict);
    if (namespace != NULL && self->dicts != NULL) {
        Py_INCREF(namespace);
        PyObject *key = PyDict_GetItemWithError(namespace, name_key);
        if (key != NULL) {
            values = PyDict_GetItemWithError(self->dicts, key);
            Py_XINCREF(values);
        }
        Py_DECREF(namespace);
    }
    Py_DECREF(greenlet);
    if (values != NULL || PyErr_Occurred()) {
        return values;
    }
    if (first_use == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "use_locals() must be called first");
        return NULL;
    }
    values = PyObject_CallOneArg(first_use, (PyObject *)self);
    if (values != NULL && !PyDict_Check(values)) {
        PyErr_Format(PyExc_TypeError, "values are a dict, not %R", values);
        Py_CLEAR(values);
    }
    return values;
}

/* Whether it is a str, as the names of attributes are; if not, there is a TypeError. */
static int
is_name(PyObject *name)
{
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "attribute name must be string, not '%.200s'", Py_TYPE(name)->tp_name);
        return 0;
    }
    return 1;
}

/* Names are interned, but for those that a program puts together itself. */
static int
is_dict(PyObject *name)
{
    return name == name_dict
           || (PyUnicode_GET_LENGTH(name) == 8 && PyUnicode_READ_CHAR(name, 0) == '_'
               && PyUnicode_Compare(name, name_dict) == 0);
}

/* The same order as in PyObject_GenericGetAttr(). */
static PyObject *
get(PyObject *self, PyObject *name)
{
    if (!is_name(name)) {
        return NULL;
    }
    PyObject *values = values_of((Local *)self);
    if (values == NULL || is_dict(name)) {
        return values;
    }
    PyObject *type = (PyObject *)Py_TYPE(self);
    PyObject *attribute = _PyType_Lookup(Py_TYPE(self), name);
    descrgetfunc getter = NULL;
    if (attribute != NULL) {
        Py_INCREF(attribute);
        getter = Py_TYPE(attribute)->tp_descr_get;
        if (getter != NULL && Py_TYPE(attribute)->tp_descr_set != NULL) {
            PyObject *result = getter(attribute, self, type);
            Py_DECREF(attribute);
            Py_DECREF(values);
            return result;
        }
    }
    PyObject *value = PyDict_GetItemWithError(values, name);
    Py_XINCREF(value);
    Py_DECREF(values);
    if (value != NULL || PyErr_Occurred()) {
        Py_XDECREF(attribute);
        return value;
    }
    if (getter != NULL) {
        value = getter(attribute, self, type);
        Py_DECREF(attribute);
        return value;
    }
    if (attribute != NULL) {
        return attribute;
    }
    return PyObject_GenericGetAttr(self, name); /* it has the words for the error */
}

/* Raise what a function makes of the object and the name; -1. */
static int
raise_from(PyObject *function, PyObject *self, PyObject *name)
{
    PyObject *error = PyObject_CallFunctionObjArgs(function, self, name, NULL);
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return -1;
}

/* The same order as in PyObject_GenericSetAttr(). value: NULL to delete. */
static int
set(PyObject *self, PyObject *name, PyObject *value)
{
    if (!is_name(name)) {
        return -1;
    }
    PyObject *values = values_of((Local *)self);
    if (values == NULL) {
        return -1;
    }
    int failed;
    PyObject *attribute = _PyType_Lookup(Py_TYPE(self), name);
    if (is_dict(name)) {
        failed = raise_from(read_only, self, name);
    }
    else if (attribute != NULL && Py_TYPE(attribute)->tp_descr_set != NULL) {
        Py_INCREF(attribute);
        failed = Py_TYPE(attribute)->tp_descr_set(attribute, self, value);
        Py_DECREF(attribute);
    }
    else if (value != NULL) {
        failed = PyDict_SetItem(values, name, value);
    }
    else {
        failed = PyDict_DelItem(values, name);
        if (failed && PyErr_ExceptionMatches(PyExc_KeyError)) {
            PyErr_Clear();
            failed = raise_from(no_attribute, self, name);
        }
    }
    Py_DECREF(values);
    return failed;
}

static int
traverse(Local *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->state);
    Py_VISIT(self->dicts);
    return 0;
}

/* The state goes first: greenlets are told that there is nothing here to drop any more. */
static int
clear(Local *self)
{
    Py_CLEAR(self->state);
    Py_CLEAR(self->dicts);
    return 0;
}

static void
dealloc(Local *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef members[] = {
    {"_local__state", T_OBJECT_EX, offsetof(Local, state), 0, NULL},
    {"_local__dicts", T_OBJECT_EX, offsetof(Local, dicts), 0, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Local, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot local_slots[] = {
    {Py_tp_doc, (void *)"Access to the attributes of a local; see bridge.local."},
    {Py_tp_getattro, get},
    {Py_tp_setattro, set},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, dealloc},
    {Py_tp_members, members},
    {0, NULL},
};

static PyType_Spec local_spec = {
    .name = "bridge._core._local.LocalBase",
    .basicsize = sizeof(Local),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = local_slots,
};

PyDoc_STRVAR(use_locals_doc,
"use_locals(first_use, no_attribute, read_only, /)\n--\n\n"
"Called once, by bridge.local.");

static PyObject *
use_locals(PyObject *module, PyObject *args)
{
    PyObject *use, *missing, *fixed;
    if (!PyArg_ParseTuple(args, "OOO:use_locals", &use, &missing, &fixed)) {
        return NULL;
    }
    Py_XSETREF(first_use, Py_NewRef(use));
    Py_XSETREF(no_attribute, Py_NewRef(missing));
    Py_XSETREF(read_only, Py_NewRef(fixed));
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"use_locals", use_locals, METH_VARARGS, use_locals_doc},
    {NULL, NULL, 0, NULL},
};

static int
execute(PyObject *module)
{
    if (claim_for_interpreter() < 0 || (api = import_switching()) == NULL) {
        return -1;
    }
    greenlet_dict = api->greenlet_type->tp_dictoffset;
    if (greenlet_dict <= 0) {
        PyErr_SetString(PyExc_ImportError, "greenlets do not have their dictionary where it was expected");
        return -1;
    }
    if (intern(&name_key, "_bridge_local") < 0 || intern(&name_dict, "__dict__") < 0) {
        return -1;
    }
    PyObject *type = PyType_FromSpec(&local_spec);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddObjectRef(module, "LocalBase", type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bridge._core._local",
    .m_doc = "Access to the attributes of locals, compiled.",
    .m_size = 0,
    .m_methods = module_methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__local(void)
{
    return PyModuleDef_Init(&definition);
}
