/* Which frames are below the current one: the compiled twin of bridge._origin.callers.

   Every new greenlet notes where it was made. In Python that is a third of what making it costs. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define FAR 32

PyDoc_STRVAR(callers_doc,
"callers(limit, like, /) -> tuple\n\n"
"Return code, offset, code, offset ... of the callers of the current function, the nearest first.\n\n"
":param limit: how many callers at the most.\n"
":param like: an earlier result, which is given again if it says the same.");

/* Whether a tuple is what would be made of these. */
static int
says(PyObject *like, PyObject **codes, int *offsets, Py_ssize_t n)
{
    if (!PyTuple_CheckExact(like) || PyTuple_GET_SIZE(like) != 2 * n) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *offset = PyTuple_GET_ITEM(like, 2 * i + 1);
        if (PyTuple_GET_ITEM(like, 2 * i) != codes[i] || !PyLong_CheckExact(offset)
            || PyLong_AsLong(offset) != offsets[i]) {
            return 0;
        }
    }
    return 1;
}

static PyObject *
callers(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "callers() takes two arguments");
        return NULL;
    }
    Py_ssize_t limit = PyLong_AsSsize_t(args[0]);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (limit > FAR) {
        limit = FAR;
    }
    PyObject *codes[FAR];
    int offsets[FAR];
    Py_ssize_t n = 0;
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    while (frame != NULL) {
        PyFrameObject *back = n < limit ? PyFrame_GetBack(frame) : NULL;
        Py_DECREF(frame);
        frame = back;
        if (frame != NULL) {
            codes[n] = (PyObject *)PyFrame_GetCode(frame);
            offsets[n++] = PyFrame_GetLasti(frame);
        }
    }
    PyObject *result;
    if (PyErr_Occurred()) {
        result = NULL; /* there was no memory for a frame, which is not told otherwise */
    }
    else if (says(args[1], codes, offsets, n)) {
        result = Py_NewRef(args[1]);
    }
    else {
        result = PyTuple_New(2 * n);
        for (Py_ssize_t i = 0; i < n && result != NULL; i++) {
            PyObject *offset = PyLong_FromLong(offsets[i]);
            if (offset == NULL) {
                Py_CLEAR(result);
                break;
            }
            PyTuple_SET_ITEM(result, 2 * i, Py_NewRef(codes[i]));
            PyTuple_SET_ITEM(result, 2 * i + 1, offset);
        }
    }
    while (n > 0) {
        Py_DECREF(codes[--n]);
    }
    return result;
}

static PyMethodDef methods[] = {
    {"callers", (PyCFunction)(void (*)(void))callers, METH_FASTCALL, callers_doc},
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
