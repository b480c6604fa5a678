/* The quick half of a queue: the compiled twin of bridge._core.queues.QueueBase, where the theory is.

   Each method does what the method of the same name does there, and nothing else: if there is nothing to wait
   for, it is done here; all that may block is left to the methods in Python. */

#include "_compiled.h"

typedef struct {
    PyObject_HEAD
    PyObject *items;   /* _items: deque or list */
    PyObject *pop;     /* _pop() takes an item */
    PyObject *push;    /* _push(item) adds one */
    PyObject *getters; /* _getters: the line of those who wait for items */
    PyObject *putters; /* _putters: the line of those who wait for places */
    Py_ssize_t limit;  /* _limit: so many items may go in without further questions; -1: none */
    Py_ssize_t tasks;  /* _tasks: items put and not yet reported done */
    char takes;        /* _takes: an item may be taken without further questions */
    PyObject *weakrefs;
} Queue;

static PyObject *name_tell, *name_block, *name_timeout, *name_item, *name_put, *name_get, *name_last_done;

static int
traverse(Queue *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->items);
    Py_VISIT(self->pop);
    Py_VISIT(self->push);
    Py_VISIT(self->getters);
    Py_VISIT(self->putters);
    return 0;
}

static int
clear(Queue *self)
{
    Py_CLEAR(self->items);
    Py_CLEAR(self->pop);
    Py_CLEAR(self->push);
    Py_CLEAR(self->getters);
    Py_CLEAR(self->putters);
    return 0;
}

static void
dealloc(Queue *self)
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

/* Tell the head of a line that there is something for it; 0, or -1 with an exception. */
static int
tell(PyObject *line)
{
    Py_ssize_t n = PyObject_Size(line);
    if (n > 0) {
        PyObject *result = PyObject_CallMethodNoArgs(line, name_tell);
        if (result == NULL) {
            return -1;
        }
        Py_DECREF(result);
        return 0;
    }
    return (int)n;
}

/* 1: done; 0: it is for the slow way; -1: an exception */
static int
put_quickly(Queue *self, PyObject *item)
{
    if (self->limit < 0 || self->items == NULL || self->push == NULL || self->getters == NULL) {
        return 0;
    }
    Py_ssize_t size = PyObject_Size(self->items);
    if (size < 0) {
        return -1;
    }
    if (size >= self->limit) {
        return 0;
    }
    self->tasks++;
    PyObject *push = Py_NewRef(self->push);
    PyObject *result = PyObject_CallOneArg(push, item);
    Py_DECREF(push);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    PyObject *line = self->getters;
    if (line == NULL) {
        return 1;
    }
    Py_INCREF(line);
    int told = tell(line);
    Py_DECREF(line);
    return told < 0 ? -1 : 1;
}

/* The item; NULL without an exception: it is for the slow way. */
static PyObject *
get_quickly(Queue *self)
{
    if (!self->takes || self->items == NULL || self->pop == NULL || self->putters == NULL) {
        return NULL;
    }
    Py_ssize_t size = PyObject_Size(self->items);
    if (size <= 0) {
        return NULL;
    }
    PyObject *pop = Py_NewRef(self->pop);
    PyObject *item = PyObject_CallNoArgs(pop);
    Py_DECREF(pop);
    if (item == NULL) {
        if (PyErr_ExceptionMatches(PyExc_IndexError)) {
            PyErr_Clear(); /* another thread took it */
        }
        return NULL;
    }
    PyObject *line = self->putters;
    if (line != NULL) {
        Py_INCREF(line);
        int told = tell(line);
        Py_DECREF(line);
        if (told < 0) {
            Py_DECREF(item);
            return NULL;
        }
    }
    return item;
}

/* Sort the arguments of a call into the parameters called *names*; 0, or -1 with a TypeError. */
static int
sort_arguments(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
               PyObject *const *names, Py_ssize_t required, Py_ssize_t count, PyObject **out)
{
    if (nargs > count) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd arguments (%zd given)", function, count, nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        out[i] = args[i];
    }
    Py_ssize_t extra = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t k = 0; k < extra; k++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, k);
        Py_ssize_t i = 0;
        for (; i < count; i++) {
            int same = name == names[i] ? 1 : PyUnicode_Compare(name, names[i]) == 0;
            if (same) {
                break;
            }
        }
        if (i == count) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", function, name);
            return -1;
        }
        if (out[i] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument %R", function, name);
            return -1;
        }
        out[i] = args[nargs + k];
    }
    for (Py_ssize_t i = 0; i < required; i++) {
        if (out[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing argument %R", function, names[i]);
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(put_doc,
"put($self, item, block=True, timeout=None)\n--\n\n"
"Add an item, waiting for a free place if need be.\n\n"
":param block: False: raise Full instead of waiting.\n"
":param timeout: seconds to wait at the most; then Full is raised. ValueError if negative.\n\n"
"Raises ShutDown after shutdown().");

static PyObject *
put(Queue *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *names[3] = {name_item, name_block, name_timeout};
    PyObject *values[4] = {(PyObject *)self, NULL, NULL, NULL};
    if (sort_arguments("put", args, nargs, kwnames, names, 1, 3, values + 1) < 0) {
        return NULL;
    }
    int timed = values[3] != NULL && values[3] != Py_None; /* the slow way looks at the timeout */
    int done = timed ? 0 : put_quickly(self, values[1]);
    if (done > 0) {
        Py_RETURN_NONE;
    }
    if (done < 0) {
        return NULL;
    }
    values[2] = values[2] == NULL ? Py_True : values[2];
    values[3] = values[3] == NULL ? Py_None : values[3];
    return PyObject_VectorcallMethod(name_put, values, 4, NULL);
}

PyDoc_STRVAR(put_nowait_doc,
"put_nowait($self, item)\n--\n\n"
"Add an item, or raise Full. Never blocks.");

static PyObject *
put_nowait(Queue *self, PyObject *item)
{
    int done = put_quickly(self, item);
    if (done > 0) {
        Py_RETURN_NONE;
    }
    if (done < 0) {
        return NULL;
    }
    PyObject *values[4] = {(PyObject *)self, item, Py_False, Py_None};
    return PyObject_VectorcallMethod(name_put, values, 4, NULL);
}

PyDoc_STRVAR(get_doc,
"get($self, block=True, timeout=None)\n--\n\n"
"Take the first item, waiting for one if there is none.\n\n"
":param block: False: raise Empty instead of waiting.\n"
":param timeout: seconds to wait at the most; then Empty is raised. ValueError if negative.\n\n"
"Raises ShutDown after shutdown(), once the queue is empty.");

static PyObject *
get(Queue *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *names[2] = {name_block, name_timeout};
    PyObject *values[3] = {(PyObject *)self, NULL, NULL};
    if (sort_arguments("get", args, nargs, kwnames, names, 0, 2, values + 1) < 0) {
        return NULL;
    }
    PyObject *item = get_quickly(self);
    if (item != NULL || PyErr_Occurred()) {
        return item;
    }
    values[1] = values[1] == NULL ? Py_True : values[1];
    values[2] = values[2] == NULL ? Py_None : values[2];
    return PyObject_VectorcallMethod(name_get, values, 3, NULL);
}

PyDoc_STRVAR(get_nowait_doc,
"get_nowait($self)\n--\n\n"
"Take the first item, or raise Empty. Never blocks.");

static PyObject *
get_nowait(Queue *self, PyObject *ignored)
{
    PyObject *item = get_quickly(self);
    if (item != NULL || PyErr_Occurred()) {
        return item;
    }
    PyObject *values[3] = {(PyObject *)self, Py_False, Py_None};
    return PyObject_VectorcallMethod(name_get, values, 3, NULL);
}

PyDoc_STRVAR(task_done_doc,
"task_done($self)\n--\n\n"
"Report that an item taken with get() has been dealt with.\n\n"
"ValueError if called more often than items were put.");

static PyObject *
task_done(Queue *self, PyObject *ignored)
{
    if (self->tasks > 1) {
        self->tasks--;
        Py_RETURN_NONE;
    }
    return PyObject_CallMethodNoArgs((PyObject *)self, name_last_done);
}

static PyMethodDef queue_methods[] = {
    {"put", (PyCFunction)(void (*)(void))put, METH_FASTCALL | METH_KEYWORDS, put_doc},
    {"put_nowait", (PyCFunction)put_nowait, METH_O, put_nowait_doc},
    {"get", (PyCFunction)(void (*)(void))get, METH_FASTCALL | METH_KEYWORDS, get_doc},
    {"get_nowait", (PyCFunction)get_nowait, METH_NOARGS, get_nowait_doc},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef joinable_methods[] = {
    {"task_done", (PyCFunction)task_done, METH_NOARGS, task_done_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef queue_members[] = {
    {"_items", T_OBJECT_EX, offsetof(Queue, items), 0, NULL},
    {"_pop", T_OBJECT_EX, offsetof(Queue, pop), 0, NULL},
    {"_push", T_OBJECT_EX, offsetof(Queue, push), 0, NULL},
    {"_getters", T_OBJECT_EX, offsetof(Queue, getters), 0, NULL},
    {"_putters", T_OBJECT_EX, offsetof(Queue, putters), 0, NULL},
    {"_limit", T_PYSSIZET, offsetof(Queue, limit), 0, NULL},
    {"_tasks", T_PYSSIZET, offsetof(Queue, tasks), 0, NULL},
    {"_takes", T_BOOL, offsetof(Queue, takes), 0, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Queue, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, (void *)"The quick half of a queue; see bridge._core.queues."},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, queue_methods},
    {Py_tp_members, queue_members},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    .name = "bridge._core._queue.QueueBase",
    .basicsize = sizeof(Queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = queue_slots,
};

static PyType_Slot joinable_slots[] = {
    {Py_tp_doc, (void *)"The same, and counting what is left to do; see bridge._core.queues."},
    {Py_tp_methods, joinable_methods},
    {0, NULL},
};

static PyType_Spec joinable_spec = {
    .name = "bridge._core._queue.JoinableBase",
    .basicsize = sizeof(Queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, /* the rest is QueueBase's */
    .slots = joinable_slots,
};

static int
execute(PyObject *module)
{
    if (claim_for_interpreter() < 0 || intern(&name_tell, "tell") < 0 || intern(&name_block, "block") < 0
        || intern(&name_timeout, "timeout") < 0 || intern(&name_item, "item") < 0
        || intern(&name_last_done, "_last_done") < 0 || intern(&name_put, "_put_slowly") < 0
        || intern(&name_get, "_get_slowly") < 0) {
        return -1;
    }
    PyObject *type = PyType_FromSpec(&queue_spec);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddObjectRef(module, "QueueBase", type);
    PyObject *joinable = failed ? NULL : PyType_FromSpecWithBases(&joinable_spec, type);
    Py_DECREF(type);
    if (joinable == NULL) {
        return -1;
    }
    failed = PyModule_AddObjectRef(module, "JoinableBase", joinable);
    Py_DECREF(joinable);
    return failed;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bridge._core._queue",
    .m_doc = "The quick half of a queue.",
    .m_size = 0,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__queue(void)
{
    return PyModuleDef_Init(&definition);
}
