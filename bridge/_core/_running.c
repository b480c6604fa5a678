/* Hiding, showing and asking for the running loop on CPython 3.11, where asyncio's own functions ask the system for
   the process id, and the one that sets it makes an object each time, which costs ten times as much as the rest.

   asyncio keeps, in a dictionary of the thread's state, one small object that holds the loop and the process it
   runs in (no other process may take it for its own). Here that object is used again: the loop in it is
   exchanged. Where there is none yet, or it is that of the parent of a forked process, asyncio's function is
   called, and makes one.

   CPython 3.11 gets no more changes than security needs, and later versions do without the object, and without this
   module. All the same nothing is taken for granted: at import the object is looked at, and if it is not what is
   expected the import fails, and asyncio's function is used. */

#include "_compiled.h"

#if PY_VERSION_HEX >= 0x030b0000 && PY_VERSION_HEX < 0x030c0000 && !defined(_WIN32)
#define WANTED 1
#include <pthread.h>
#include <unistd.h>
#else
#define WANTED 0
#endif

#if WANTED

typedef struct {
    PyObject_HEAD
    PyObject *loop;
    pid_t pid;
} Holder;

static PyObject *key;            /* of the thread's dictionary */
static PyObject *original, *original_get; /* asyncio's functions */
static PyTypeObject *holder_type;
static pid_t own_pid;

static void
forked(void)
{
    own_pid = getpid();
}

static Holder *
find_holder(void)
{
    PyObject *of_thread = PyThreadState_GetDict();
    PyObject *found = of_thread == NULL ? NULL : PyDict_GetItemWithError(of_thread, key);
    return (Holder *)found;
}

PyDoc_STRVAR(set_running_loop_doc,
"set_running_loop(loop, /)\n\n"
"Make loop the running one of this thread; None: none runs. As asyncio._set_running_loop().");

static PyObject *
set_running_loop(PyObject *module, PyObject *loop)
{
    Holder *holder = find_holder();
    if (holder == NULL || Py_TYPE(holder) != holder_type || holder->pid != own_pid) {
        return PyErr_Occurred() ? NULL : PyObject_CallOneArg(original, loop);
    }
    PyObject *before = holder->loop;
    holder->loop = Py_NewRef(loop);
    Py_DECREF(before);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(get_running_loop_doc,
"get_running_loop()\n\n"
"The running loop of this thread; None: none runs. As asyncio._get_running_loop().");

static PyObject *
get_running_loop(PyObject *module, PyObject *ignored)
{
    Holder *holder = find_holder();
    if (holder == NULL || Py_TYPE(holder) != holder_type || holder->pid != own_pid) {
        return PyErr_Occurred() ? NULL : PyObject_CallNoArgs(original_get);
    }
    return Py_NewRef(holder->loop);
}

/* Is the object what we take it for? */
static int
look(PyObject *expected)
{
    PyObject *result = PyObject_CallOneArg(original, expected);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    Holder *holder = find_holder();
    if (holder == NULL || Py_TYPE(holder)->tp_basicsize != sizeof(Holder) || Py_TYPE(holder)->tp_itemsize != 0
        || holder->loop != expected || holder->pid != own_pid) {
        PyErr_SetString(PyExc_ImportError, "asyncio keeps the running loop in another way than expected");
        return -1;
    }
    holder_type = Py_TYPE(holder);
    return 0;
}

static int
prepare(PyObject *module)
{
    static int done;
    if (claim_for_interpreter() < 0) {
        return -1;
    }
    if (done) {
        return 0;
    }
    PyObject *asyncio = PyImport_ImportModule("_asyncio");
    if (asyncio == NULL) {
        return -1;
    }
    PyObject *running = PyObject_CallMethod(asyncio, "_get_running_loop", NULL);
    original = PyObject_GetAttrString(asyncio, "_set_running_loop");
    original_get = PyObject_GetAttrString(asyncio, "_get_running_loop");
    Py_DECREF(asyncio);
    key = PyUnicode_InternFromString("__asyncio_running_event_loop__");
    if (running == NULL || original == NULL || original_get == NULL || key == NULL) {
        Py_XDECREF(running);
        return -1;
    }
    own_pid = getpid();
    PyObject *marker = PyList_New(0);
    int failed = marker == NULL || look(marker) < 0;
    Py_XDECREF(marker);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *result = PyObject_CallOneArg(original, running); /* as it was */
    Py_XDECREF(result);
    Py_DECREF(running);
    PyErr_Restore(type, value, traceback);
    if (failed) {
        return -1;
    }
    if (pthread_atfork(NULL, NULL, forked) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    done = 1;
    return 0;
}

static PyMethodDef methods[] = {
    {"get_running_loop", get_running_loop, METH_NOARGS, get_running_loop_doc},
    {"set_running_loop", set_running_loop, METH_O, set_running_loop_doc},
    {NULL, NULL, 0, NULL},
};

#else

/* Not needed by this version of Python. */
static int
prepare(PyObject *module)
{
    return 0;
}

static PyMethodDef methods[] = {
    {NULL, NULL, 0, NULL},
};

#endif

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, prepare},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_running",
    .m_doc = "Hiding and showing the running loop of asyncio.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__running(void)
{
    return PyModuleDef_Init(&definition);
}
