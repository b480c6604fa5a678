/* What the parts of the module _edges have of one another: the files _edges.c and _edges.sockets.c. */

#ifndef BRIDGE_EDGES_PARTS_H
#define BRIDGE_EDGES_PARTS_H

#include "_compiled.h"
#include "_switching.h"

/* as in bridge._core.edges */
#define READ 1
#define WRITE 2

#define SLOT(object, offset) (*(PyObject **)((char *)(object) + (offset)))

/* Store in a slot. Takes over the reference. */
static inline void
store(PyObject *object, Py_ssize_t offset, PyObject *value)
{
    PyObject *before = SLOT(object, offset);
    SLOT(object, offset) = value;
    Py_XDECREF(before);
}

static inline void
store_flag(PyObject *object, Py_ssize_t offset, int value)
{
    store(object, offset, Py_NewRef(value ? Py_True : Py_False));
}

typedef struct {
    Py_ssize_t *offset;
    const char *name;
} Place;

static inline int
find_places(PyTypeObject *type, const Place *places)
{
    for (; places->offset != NULL; places++) {
        if (find_slot(type, places->name, T_OBJECT_EX, places->offset) < 0) {
            return -1;
        }
    }
    return 0;
}

/* _edges.c */
extern SwitchingAPI *api;
extern PyTypeObject *channel_class;
/* Where the attributes of channels are kept, which are slots. */
extern Py_ssize_t channel_drained, channel_stream, channel_reader, channel_writer, channel_home, channel_mask,
    channel_ref, channel_ample, channel_patience;
/* Put twins in the place of methods of a class; what was there is kept in `before`, if it is not NULL. 0, or -1 with an
   exception. */
int replace(PyTypeObject *type, PyMethodDef *methods, PyObject **before);
/* Edges.watch() of a channel that is registered there: have the kernel look anew. 1, 0 (for the method in Python), or
   -1 with an exception. */
int watch_again(int fd, PyObject *channel, PyObject *edges);

/* _edges.sockets.c */
extern const char use_sockets_doc[];
PyObject *use_sockets(PyObject *module, PyObject *args);
/* When the module is loaded; 0, or -1 with an exception. */
int prepare_sockets(void);

#endif
