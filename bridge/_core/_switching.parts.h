/* What the parts of the module _switching have of one another: the files _switching.c, _switching.waits.c,
   _switching.waiters.c, _switching.timers.c, _switching.lines.c and _switching.hubs.c. */

#ifndef BRIDGE_SWITCHING_PARTS_H
#define BRIDGE_SWITCHING_PARTS_H

#include "_compiled.h"
#include "_switching.h"

#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC)

/* The quick half of bridge._core.callbacks.Callback. */
typedef struct {
    PyObject_HEAD
    PyObject *callback;
    PyObject *args;
} Callback;

/* _switching.c */
extern PyTypeObject *engine_type, *hub_local_type, *callback_class;
extern PyObject *name_popleft, *name_hub, *name_loop, *name_dead, *name_woken, *name_wake, *name_trim, *name_pop,
    *name_bury;
/* greenlet.getcurrent() */
extern PyObject *(*greenlet_current)(void);
/* Append to the ready queue of an engine, and see to it that it is noticed; 0, or -1 with an exception. */
int make_ready(PyObject *engine, PyObject *item);
/* The two halves of that: whether it will be noticed, or -1 with an exception, and it is not there; 0, or -1. */
int append_ready(PyObject *engine, PyObject *item);
int arm(PyObject *engine);
PyObject *engine_park(Engine *self, PyObject *ignored);
/* If nobody is ready, sleep until somebody is, for so many seconds at the most; 1 if it is `wait` who is to go on now, 0
   if that is to be seen to by way of park(), or -1 with an exception. */
int doze_for(Engine *self, PyObject *wait, double limit);
/* Let the hub run before anybody else; somebody must be ready who switches back. */
PyObject *engine_yield(Engine *self);
PyObject *engine_probe(Engine *self, PyObject *ignored);

/* _switching.waits.c */
extern PyTypeObject *wait_type, *wait_class;
extern PyObject *get_hub; /* the function in Python */
extern const char use_waits_doc[];
PyObject *wait_wake(Wait *self, PyObject *ignored);
/* Nobody is to be switched to for this wait any more. */
void over_wait(Wait *self);
PyObject *use_waits(PyObject *module, PyObject *args);
/* Add the classes to the module; 0, or -1 with an exception. */
int add_waits(PyObject *module);

/* _switching.waiters.c */
extern const char use_waiters_doc[];
PyObject *use_waiters(PyObject *module, PyObject *object);
/* Add the class to the module; 0, or -1 with an exception. */
int add_waiters(PyObject *module);

/* _switching.timers.c */
extern const char call_at_doc[], cancel_doc[], expire_doc[];
PyObject *engine_call_at(Engine *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *engine_cancel(Engine *self, PyObject *timer);
PyObject *engine_expire(Engine *self, PyObject *arg);
/* When the module is loaded; 0, or -1 with an exception. */
int prepare_timers(void);

/* _switching.lines.c; 0, or -1 with an exception. */
/* Wake a Wait, or what has the same face. */
int wake(PyObject *entry);
/* Add the class to the module. */
int add_line(PyObject *module);

/* _switching.hubs.c */
extern PyType_Spec hub_local_spec;
extern const char use_hubs_doc[];
/* The hub of this thread, or None, as a HubLocal knows it; a new reference. */
PyObject *hub_here(PyObject *hub_local);
/* hub.loop; a new reference. */
PyObject *loop_of(PyObject *hub);
PyObject *use_hubs(PyObject *module, PyObject *type);

#endif
