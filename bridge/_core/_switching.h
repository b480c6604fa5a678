/* What _switching.c has for other compiled modules of this package, in the capsule SWITCHING_API. */

#ifndef BRIDGE_SWITCHING_H
#define BRIDGE_SWITCHING_H

#include <Python.h>

#define SWITCHING_API "bridge._core._switching._C_API"

/* The quick half of bridge._core.engine.Engine, which says what they mean. */
typedef struct {
    PyObject_HEAD
    PyObject *ready;     /* deque */
    PyObject *to_runner; /* to_runner() switches to the greenlet that drains */
    PyObject *recent;    /* who was switched to last, in a drain */
    PyObject *stale;     /* dict: how many of its wake-ups a greenlet has cancelled */
    PyObject *aio;       /* the loop of asyncio */
    PyObject *heap;      /* list of timers */
    PyObject *before;    /* lists of functions */
    PyObject *after;
    PyObject *on_idle;   /* a function, or None */
    PyObject *entered;   /* the greenlet that was switched to without a drain, or None */
    PyObject *context;   /* in which the loop calls us */
    PyObject *edges;     /* where sockets are registered, or None */
    Py_ssize_t turns;    /* hand-overs that are left until somebody looks at the clock */
    Py_ssize_t refs;     /* reasons to go on */
    Py_ssize_t cancelled; /* about how many timers in the heap were cancelled */
    long long serial;    /* of the next timer */
    char armed;          /* an append to ready will be seen without further ado */
    char draining;
    char stopping;
    char owned;
    char shared;
    char running;
    char asked;          /* the loop was asked to watch another file, since the last drain began */
    char asked_before;   /* or in the one before */
    char interrupted;    /* a signal has ended the sleep of a greenlet: the hub is to run the handlers */
} Engine;

/* The quick half of bridge._core.waiting.Wait. */
typedef struct {
    PyObject_HEAD
    PyObject *engine;   /* where it waits: an Engine, or what has the same face */
    PyObject *greenlet; /* whose wait it is */
    PyObject *target;   /* who is to be switched to when it comes up in the ready queue */
    PyObject *item;     /* free for who made the wait */
    char dead;
    char woken;
    char timed_out;
    char queued;
    char away; /* its greenlet is not in block() */
} Wait;

typedef struct {
    size_t size;
    PyTypeObject *engine_type, *wait_type, *hub_local_type, *greenlet_type;
    PyObject *switch_method; /* greenlet.switch, a method descriptor */
    /* greenlet's own */
    PyObject *(*current)(void);
    int (*is_active)(PyObject *greenlet);
    /* The hub of this thread, or None, as a HubLocal knows it; a new reference. */
    PyObject *(*hub_here)(PyObject *hub_local);
    /* hub.loop; a new reference. */
    PyObject *(*loop_of)(PyObject *hub);
    /* Switch to a greenlet; a switch() of its own is honoured. args: NULL or a tuple; kwargs: NULL or a dict. */
    PyObject *(*switch_to)(PyObject *greenlet, PyObject *args, PyObject *kwargs);
    /* The same by greenlet's own method. */
    PyObject *(*switch_plainly)(PyObject *greenlet, PyObject *args, PyObject *kwargs);
    /* Switch to the greenlet that drains. args: NULL or a tuple. */
    PyObject *(*switch_back)(Engine *engine, PyObject *args);
    PyObject *(*park)(Engine *engine, PyObject *ignored);
    PyObject *(*probe)(Engine *engine, PyObject *ignored);
    /* Append to the ready queue and see to it that it is noticed; 0, or -1 with an exception. */
    int (*make_ready)(PyObject *engine, PyObject *item);
    /* Wake a Wait, or what has the same face; 0, or -1 with an exception. */
    int (*wake)(PyObject *entry);
    /* Nobody is to be switched to for this wait any more. */
    void (*over)(Wait *wait);
    /* What the module _edges has for this one: sleep in the current greenlet until somebody is ready, if that is
       certainly right, or for so many seconds (-1: no limit); 1 if somebody is, 0 if the hub has to see to it, or
       -1 with an exception. */
    int (*doze)(Engine *engine, double limit);
} SwitchingAPI;

/* What the module _switching has; NULL with an ImportError if that was built from another version. */
static inline SwitchingAPI *
import_switching(void)
{
    /* not by PyCapsule_Import(), which looks for the module in its package: that may not have been loaded wholly */
    PyObject *module = PyImport_ImportModule("bridge._core._switching");
    if (module == NULL) {
        return NULL;
    }
    PyObject *capsule = PyObject_GetAttrString(module, "_C_API");
    Py_DECREF(module);
    SwitchingAPI *api = capsule == NULL ? NULL : (SwitchingAPI *)PyCapsule_GetPointer(capsule, SWITCHING_API);
    Py_XDECREF(capsule);
    if (api == NULL || api->size != sizeof(SwitchingAPI)) {
        PyErr_SetString(PyExc_ImportError, "bridge._core._switching was built from another version");
        return NULL;
    }
    return api; /* the module lasts as long as the process */
}

#endif
