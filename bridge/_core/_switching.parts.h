/* What the parts of the module _switching have of one another: the files _switching.c, _switching.lines.c and
   _switching.hubs.c. */

#ifndef BRIDGE_SWITCHING_PARTS_H
#define BRIDGE_SWITCHING_PARTS_H

#include "_compiled.h"
#include "_switching.h"

#define DEALLOC(name, type)                      \
    static void name##_dealloc(type *self)       \
    {                                            \
        PyTypeObject *cls = Py_TYPE(self);       \
        PyObject_GC_UnTrack(self);               \
        name##_clear(self);                      \
        cls->tp_free(self);                      \
        Py_DECREF(cls);                          \
    }

/* _switching.c */
extern PyTypeObject *engine_type, *wait_type;
extern PyObject *name_popleft, *name_hub, *name_loop, *name_dead, *name_woken, *name_wake, *name_trim, *name_pop,
    *name_bury;
PyObject *wait_wake(Wait *self, PyObject *ignored);

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
