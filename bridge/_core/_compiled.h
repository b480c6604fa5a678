/* What the extension modules of this package have in common. */

#ifndef BRIDGE_COMPILED_H
#define BRIDGE_COMPILED_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>
#include <time.h>

/* Call for the effect; 0, or -1 with an exception. */
static inline int
done_with(PyObject *result)
{
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

/* Seconds, as time.monotonic() has them. */
static inline double
monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* What a module is told and what it makes for itself it has once, not once for each interpreter of the process: it is
   for the one that has loaded it first, and for the others there are the twins in Python. To be called when a module is
   executed; 0, or -1 with an ImportError. */
static inline int
claim_for_interpreter(void)
{
    static int64_t owner = -1;
    int64_t id = PyInterpreterState_GetID(PyInterpreterState_Get());
    if (id < 0) {
        return -1;
    }
    if (owner < 0) {
        owner = id;
    }
    if (owner != id) {
        PyErr_SetString(PyExc_ImportError, "this module is in use in another interpreter of the process");
        return -1;
    }
    return 0;
}

/* Make a name, unless it is there; 0, or -1 with an exception. */
static inline int
intern(PyObject **name, const char *text)
{
    if (*name == NULL) {
        *name = PyUnicode_InternFromString(text);
    }
    return *name == NULL ? -1 : 0;
}

/* Where the slot of that name and kind (T_OBJECT_EX ...) of a class is; 0, or -1 with an exception. */
static inline int
find_slot(PyTypeObject *type, const char *name, int kind, Py_ssize_t *offset)
{
    PyObject *descriptor = PyObject_GetAttrString((PyObject *)type, name);
    if (descriptor == NULL) {
        return -1;
    }
    int found = Py_TYPE(descriptor) == &PyMemberDescr_Type
                && ((PyMemberDescrObject *)descriptor)->d_member->type == kind;
    if (found) {
        *offset = ((PyMemberDescrObject *)descriptor)->d_member->offset;
    }
    else {
        PyErr_Format(PyExc_TypeError, "%s.%s is not the slot that was expected", type->tp_name, name);
    }
    Py_DECREF(descriptor);
    return found ? 0 : -1;
}

/* Make a type and add it to the module; `kept`, if it is not NULL, gets a reference. 0, or -1 with an exception. */
static inline int
add_type(PyObject *module, const char *name, PyType_Spec *spec, PyTypeObject **kept)
{
    PyObject *type = PyType_FromSpec(spec);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddObjectRef(module, name, type);
    if (kept != NULL && !failed) {
        Py_XSETREF(*kept, (PyTypeObject *)Py_NewRef(type));
    }
    Py_DECREF(type);
    return failed;
}

/* How objects of a type that the collector knows are freed, if there is nothing to it but clearing them. */
#define DEALLOC(name, type)                      \
    static void name##_dealloc(type *self)       \
    {                                            \
        PyTypeObject *cls = Py_TYPE(self);       \
        PyObject_GC_UnTrack(self);               \
        name##_clear(self);                      \
        cls->tp_free(self);                      \
        Py_DECREF(cls);                          \
    }

#endif
