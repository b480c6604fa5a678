/* Which frames are below the current one: the compiled twin of bridge._origin.callers.

   Every new greenlet notes where it was made. In Python that is a third of what making it costs. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyDoc_STRVAR(callers_doc,
"callers(limit, /) -> tuple\n\n"
"Return code, offset, code, offset ... of the callers of the current function, the nearest first.\n\n"
":param limit: how many callers at the most.");

static PyObject *
callers(PyObject *module, PyObject *argument)
{
    Py_ssize_t limit = PyLong_AsSsize_t(argument);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *found[64];
    Py_ssize_t n = 0, room = (Py_ssize_t)(sizeof(found) / sizeof(found[0]));
    if (limit > room / 2) {
        limit = room / 2;
    }
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    while (frame != NULL) {
        PyFrameObject *back = limit > 0 ? PyFrame_GetBack(frame) : NULL;
        Py_DECREF(frame);
        frame = back;
        if (frame != NULL) {
            PyObject *offset = PyLong_FromLong(PyFrame_GetLasti(frame));
            if (offset == NULL) {
                Py_DECREF(frame);
                goto failed;
            }
            found[n++] = (PyObject *)PyFrame_GetCode(frame);
            found[n++] = offset;
            limit--;
        }
    }
    PyObject *result = PyTuple_New(n);
    if (result == NULL) {
        goto failed;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyTuple_SET_ITEM(result, i, found[i]);
    }
    return result;

failed:
    while (n > 0) {
        Py_DECREF(found[--n]);
    }
    return NULL;
}

static PyMethodDef methods[] = {
    {"callers", callers, METH_O, callers_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bridge._core._stack",
    .m_doc = "The callers of the current function, noted quickly.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__stack(void)
{
    return PyModuleDef_Init(&definition);
}
