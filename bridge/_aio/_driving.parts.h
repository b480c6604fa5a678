/* What the parts of the module _driving have of one another: the files _driving.c, _driving.entering.c,
   _driving.calls.c and _driving.portals.c. */

#ifndef BRIDGE_DRIVING_PARTS_H
#define BRIDGE_DRIVING_PARTS_H

#include "_compiled.h"
#include "_switching.h"

static inline void
set_slot(PyObject **slot, PyObject *value)
{
    PyObject *before = *slot;
    *slot = Py_NewRef(value);
    Py_XDECREF(before);
}

/* The current exception, taken; a new reference. */
static inline PyObject *
take_exception(void)
{
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        PyException_SetTraceback(value, tb);
        Py_DECREF(tb);
    }
    Py_DECREF(type);
    return value;
}

/* Raise an exception, as the statement does: the one that is being handled becomes its context. */
static inline void
raise(PyObject *exception)
{
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
}

/* Let an exception that was taken go on, with the context that it has. The reference is taken away. */
static inline void
put_back(PyObject *exception)
{
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exception)), exception, PyException_GetTraceback(exception));
}

struct name {
    PyObject **where;
    const char *text;
};

/* _driving.c */

/* Which of use_loops(), use_tasks(), use_calls() and use_portals() were called. */
extern int known;
#define LOOPS 1
#define TASKS 2
#define CALLS 4
#define PORTALS 8

/* Whether what a function needs is still to be told to us: an exception is set then. */
int is_new(int needed);

extern SwitchingAPI *api;
extern PyObject *empty, *get_current_task, *current_tasks; /* current_tasks may be NULL */
extern PyObject *name_parent, *name_get_loop, *name_done;
/* What who switches back passes if the loop is shown, as a tuple too; what is called with the error of a greenlet. */
extern PyObject *shown, *shown_args, *failed;

/* Whether all is there that we use of an engine. */
int is_whole(PyObject *object);
/* Show the loop to asyncio, or hide it; 0, or -1 with an exception. */
int show(PyObject *aio);
#define hide() show(Py_None)
/* The same with an exception set, which stays; errors of our own come instead. */
void show_or_hide(PyObject *aio);
/* asyncio's functions of these names; 0, or -1 with an exception. */
int enter_task(PyObject *aio, PyObject *task);
int leave_task(PyObject *aio, PyObject *task);
/* leave_task() with an exception set. */
void leave_task_failing(PyObject *aio, PyObject *task);
/* greenlet.switch, bound. */
PyObject *switch_of(PyObject *g);

/* _driving.entering.c */

typedef struct {
    PyObject_HEAD
    PyObject *wait;
    PyObject *future;
    Py_ssize_t stale;
} Wakeup;

extern PyTypeObject *wakeup_type;
PyObject *new_wakeup(PyObject *wait);

/* In a step of task (None: there is none): start g. */
PyObject *begin(Engine *engine, PyObject *aio, PyObject *task, PyObject *g, PyObject *args, PyObject *kwargs);
/* The engine of this thread's hub; NULL: there is none, or with an exception. A new reference. */
Engine *engine_here(PyObject **hub);

void keep(PyObject **where, PyObject *object);
int intern_names(const struct name *names, size_t n);

/* The other parts: add what they have to the module; 0, or -1 with an exception. */
int add_entering(PyObject *module);
int add_calls(PyObject *module);
int add_portals(PyObject *module);

#endif
