/* Lines of waits: the compiled twin of bridge._core.switching.LineBase, a deque of those who wait. */

#include "_switching.parts.h"

/* What is in a line is a Wait, or has the same attributes. 1, 0, or -1 with an exception. */
static int
flag_of(PyObject *entry, size_t offset, PyObject *name)
{
    if (PyObject_TypeCheck(entry, wait_type)) {
        return *((char *)entry + offset);
    }
    PyObject *value = PyObject_GetAttr(entry, name);
    if (value == NULL) {
        return -1;
    }
    int flag = PyObject_IsTrue(value);
    Py_DECREF(value);
    return flag;
}

#define IS_DEAD(entry) flag_of((entry), offsetof(Wait, dead), name_dead)
#define IS_WOKEN(entry) flag_of((entry), offsetof(Wait, woken), name_woken)

static int
die(PyObject *entry)
{
    if (PyObject_TypeCheck(entry, wait_type)) {
        ((Wait *)entry)->dead = 1;
        return 0;
    }
    return PyObject_SetAttr(entry, name_dead, Py_True);
}

int
wake(PyObject *entry)
{
    return done_with(PyObject_TypeCheck(entry, wait_type) ? wait_wake((Wait *)entry, NULL)
                                                          : PyObject_CallMethodNoArgs(entry, name_wake));
}

/* Remove the tombstones at the ends, if there are any. */
static int
trim_if_needed(PyObject *self)
{
    Py_ssize_t n = PyObject_Size(self);
    if (n <= 0) {
        return (int)n;
    }
    PyObject *head = PySequence_GetItem(self, 0);
    if (head == NULL) {
        return -1;
    }
    int dead = IS_DEAD(head);
    Py_DECREF(head);
    if (dead == 0 && n > 1) {
        PyObject *last = PySequence_GetItem(self, n - 1);
        if (last == NULL) {
            return -1;
        }
        dead = IS_DEAD(last);
        Py_DECREF(last);
    }
    return dead > 0 ? done_with(PyObject_CallMethodNoArgs(self, name_trim)) : dead;
}

PyDoc_STRVAR(tell_doc,
"tell($self, /)\n--\n\n"
"Wake the head, if there is one that was not told yet. It stays in line.");

static PyObject *
line_tell(PyObject *self, PyObject *ignored)
{
    Py_ssize_t n = PyObject_Size(self);
    if (n > 0) {
        PyObject *head = PySequence_GetItem(self, 0);
        if (head == NULL) {
            return NULL;
        }
        int woken = IS_WOKEN(head);
        if (woken < 0 || (!woken && wake(head) < 0)) {
            Py_DECREF(head);
            return NULL;
        }
        Py_DECREF(head);
    }
    else if (n < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(leave_doc,
"leave($self, /)\n--\n\n"
"Take the head out of the line and return it. IndexError if nobody is in line.");

static PyObject *
line_leave(PyObject *self, PyObject *ignored)
{
    for (;;) {
        PyObject *head = PyObject_CallMethodNoArgs(self, name_popleft);
        if (head == NULL) {
            return NULL;
        }
        int dead = IS_DEAD(head);
        if (dead == 0) {
            if (die(head) < 0 || trim_if_needed(self) < 0) {
                Py_DECREF(head);
                return NULL;
            }
            return head;
        }
        Py_DECREF(head);
        if (dead < 0) {
            return NULL;
        }
    }
}

PyDoc_STRVAR(discard_doc,
"discard($self, wait, /)\n--\n\n"
"Take ``wait`` out of the line, wherever it is; False if it has left.");

static PyObject *
line_discard(PyObject *self, PyObject *wait)
{
    int dead = IS_DEAD(wait);
    if (dead) {
        return dead < 0 ? NULL : Py_NewRef(Py_False);
    }
    Py_ssize_t n = PyObject_Size(self);
    if (n <= 0) {
        return n < 0 ? NULL : Py_NewRef(Py_False);
    }
    if (die(wait) < 0) {
        return NULL;
    }
    PyObject *head = PySequence_GetItem(self, 0);
    PyObject *last = head == NULL ? NULL : PySequence_GetItem(self, n - 1);
    if (last == NULL) {
        Py_XDECREF(head);
        return NULL;
    }
    PyObject *name = head == wait ? name_popleft : last == wait ? name_pop : name_bury;
    Py_DECREF(head);
    Py_DECREF(last);
    if (done_with(PyObject_CallMethodNoArgs(self, name)) < 0 || (name != name_bury && trim_if_needed(self) < 0)) {
        return NULL;
    }
    Py_RETURN_TRUE;
}

static PyMethodDef line_methods[] = {
    {"tell", (PyCFunction)line_tell, METH_NOARGS, tell_doc},
    {"leave", (PyCFunction)line_leave, METH_NOARGS, leave_doc},
    {"discard", (PyCFunction)line_discard, METH_O, discard_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot line_slots[] = {
    {Py_tp_doc, (void *)"The quick half of a line of waits; see bridge._core.switching."},
    {Py_tp_methods, line_methods},
    {0, NULL},
};

static PyType_Spec line_spec = {
    .name = "bridge._core._switching.LineBase",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, /* the rest is the deque's */
    .slots = line_slots,
};

/* Lines are deques. */
int
add_line(PyObject *module)
{
    PyObject *collections = PyImport_ImportModule("collections");
    if (collections == NULL) {
        return -1;
    }
    PyObject *deque = PyObject_GetAttrString(collections, "deque");
    Py_DECREF(collections);
    if (deque == NULL) {
        return -1;
    }
    PyObject *type = PyType_FromSpecWithBases(&line_spec, deque);
    Py_DECREF(deque);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddObjectRef(module, "LineBase", type);
    Py_DECREF(type);
    return failed;
}
