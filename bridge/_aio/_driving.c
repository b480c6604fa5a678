/* Taking the steps of coroutines in greenlets: the compiled twin of what is quick in bridge._aio.driving,
   bridge._aio.entering and bridge._aio.stepping, where the theory is, and of the beginning of a call in bridge._calling.

   Each function does what the one of the same name does there. What is rare is left to the functions in Python:
   go_on() takes over a coroutine in the middle, wherever its wait ended in another way than by a future that is done.

   The tasks of greenlets are objects of a class in Python, whose slots are read and written here directly. */

#include "_driving.parts.h"

#if PY_VERSION_HEX < 0x030d0000
#define PyObject_GetOptionalAttr _PyObject_LookupAttr
#endif

SwitchingAPI *api;

/* What the modules in Python tell us when they are loaded. */
PyObject *get_current_task, *current_tasks;
static PyObject *set_running, *enter_function, *leave_function;
PyObject *shown, *shown_args, *failed;
static PyTypeObject *task_class, *wait_class, *future_type, *aio_task_type;
static PyObject *references, *task_of_function, *cancelled, *go_on_function, *hub_local, *elsewhere;

/* Which of use_loops(), use_tasks(), use_calls() and use_portals() were called. */
int known;

PyObject *empty;
PyObject *name_parent, *name_get_loop, *name_done;
static PyObject *name_bridge_task, *name_call_soon,
    *name_add_done_callback, *name_remove_done_callback, *name_blocking, *name_result, *name_scheduled, *name_enlist,
    *name_delist, *name_settle, *name_invalid, *names_context;

/* Where the slots of a GreenletTask are. */
static struct {
    Py_ssize_t engine, aio, awaiting, touched, wait, wakeup, listed, cancel_now, told, reference;
} at, found;

#define SLOT(object, name) (*(PyObject **)((char *)(object) + at.name))

/* The class of engines is mostly the one that we have seen before: a search of its bases is saved. */
static PyTypeObject *engine_class;

static int
is_engine(PyObject *object)
{
    if (!PyObject_TypeCheck(object, api->engine_type)) {
        return 0;
    }
    Py_XSETREF(engine_class, (PyTypeObject *)Py_NewRef((PyObject *)Py_TYPE(object)));
    return 1;
}

#define IS_ENGINE(object) (Py_TYPE(object) == engine_class || is_engine(object))

/* Whether all is there that we use of an engine. (One in Python may lack what __init__() makes.) */
int
is_whole(PyObject *object)
{
    if (!IS_ENGINE(object)) {
        return 0;
    }
    Engine *engine = (Engine *)object;
    return engine->ready != NULL && engine->to_runner != NULL && engine->aio != NULL && engine->on_idle != NULL
           && engine->entered != NULL && engine->context != NULL && engine->heap != NULL && engine->before != NULL
           && engine->after != NULL && PyList_CheckExact(engine->heap) && PyList_CheckExact(engine->before)
           && PyList_CheckExact(engine->after);
}

/* Whether what a function needs is still to be told to us: an exception is set then. */
int
is_new(int needed)
{
    if ((known & needed) == needed) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError, "the modules that use bridge._aio._driving have not been imported");
    return 1;
}

int
show(PyObject *aio)
{
    if (PyCFunction_CheckExact(set_running) && PyCFunction_GET_FLAGS(set_running) == METH_O) {
        return done_with(PyCFunction_GET_FUNCTION(set_running)(PyCFunction_GET_SELF(set_running), aio));
    }
    return done_with(PyObject_CallOneArg(set_running, aio));
}

/* The same with an exception set, which stays; errors of our own come instead. */
void
show_or_hide(PyObject *aio)
{
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (show(aio) == 0) {
        PyErr_Restore(type, value, tb);
        return;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(tb);
}

/* asyncio's own functions do as much: they look into this dictionary. (Where there is none they are called.) */
int
enter_task(PyObject *aio, PyObject *task)
{
    if (current_tasks != NULL) {
        PyObject *before = PyDict_SetDefault(current_tasks, aio, task);
        if (before == task) {
            return 0;
        }
        if (before == NULL) {
            return -1;
        }
    }
    return done_with(PyObject_CallFunctionObjArgs(enter_function, aio, task, NULL));
}

int
leave_task(PyObject *aio, PyObject *task)
{
    if (current_tasks != NULL && PyDict_GetItemWithError(current_tasks, aio) == task) {
        return PyDict_DelItem(current_tasks, aio);
    }
    if (PyErr_Occurred()) {
        return -1;
    }
    return done_with(PyObject_CallFunctionObjArgs(leave_function, aio, task, NULL));
}

/* leave_task() with an exception set. */
void
leave_task_failing(PyObject *aio, PyObject *task)
{
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (leave_task(aio, task) == 0) {
        PyErr_Restore(type, value, tb);
        return;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(tb);
}

/* greenlet.switch, bound. */
PyObject *
switch_of(PyObject *g)
{
    return PyCFunction_NewEx(((PyMethodDescrObject *)api->switch_method)->d_method, g, NULL);
}

/* ---- the tasks of greenlets --------------------------------------------------------------------------------- */

/* As GreenletTask.__init__(). */
static PyObject *
new_task(Engine *engine)
{
    PyObject *task = task_class->tp_new(task_class, empty, NULL);
    if (task == NULL) {
        return NULL;
    }
    Wait *wait = (Wait *)wait_class->tp_alloc(wait_class, 0);
    if (wait == NULL) {
        Py_DECREF(task);
        return NULL;
    }
    SLOT(task, wait) = (PyObject *)wait;
    wait->engine = Py_NewRef((PyObject *)engine);
    wait->greenlet = Py_NewRef(Py_None);
    wait->target = Py_NewRef(Py_None);
    SLOT(task, engine) = Py_NewRef((PyObject *)engine);
    SLOT(task, aio) = Py_NewRef(engine->aio);
    SLOT(task, awaiting) = Py_NewRef(Py_None);
    SLOT(task, told) = Py_NewRef(Py_None);
    SLOT(task, reference) = Py_NewRef(Py_None);
    SLOT(task, touched) = Py_NewRef(Py_False);
    SLOT(task, listed) = Py_NewRef(Py_False);
    SLOT(task, cancel_now) = Py_NewRef(Py_False);
    SLOT(task, wakeup) = new_wakeup((PyObject *)wait);
    if (SLOT(task, wakeup) == NULL) {
        Py_DECREF(task);
        return NULL;
    }
    return task;
}

static PyObject *
task_of(Engine *engine, PyObject *g)
{
    PyObject *dict = PyObject_GenericGetDict(g, NULL);
    if (dict == NULL) {
        return NULL;
    }
    PyObject *task = PyDict_GetItemWithError(dict, name_bridge_task);
    if (task == NULL) {
        if (!PyErr_Occurred()) {
            task = new_task(engine);
            if (task != NULL && PyDict_SetItem(dict, name_bridge_task, task) < 0) {
                Py_CLEAR(task);
            }
        }
    }
    else if (Py_TYPE(task) == task_class && SLOT(task, aio) == engine->aio && SLOT(task, told) == Py_None) {
        Py_INCREF(task);
    }
    else {
        /* another loop, that of a forked child, too; or it may have ended */
        task = PyObject_CallFunctionObjArgs(task_of_function, g, engine, NULL);
    }
    if (task != NULL
        && (Py_TYPE(task) != task_class || SLOT(task, wait) == NULL || SLOT(task, wakeup) == NULL
            || Py_TYPE(SLOT(task, wait)) != wait_class || Py_TYPE(SLOT(task, wakeup)) != wakeup_type)) {
        PyErr_Format(PyExc_TypeError, "%R is no task of a greenlet", task);
        Py_CLEAR(task);
    }
    Py_DECREF(dict);
    return task;
}

static int
enlist(PyObject *task)
{
    if (references == NULL || SLOT(task, reference) != Py_None) {
        return done_with(PyObject_CallMethodNoArgs(task, name_enlist));
    }
    PyObject *reference = PyWeakref_NewRef(task, NULL);
    if (reference == NULL) {
        return -1;
    }
    set_slot(&SLOT(task, reference), reference);
    Py_DECREF(reference);
    return PySet_Add(references, reference);
}

static int
delist(PyObject *task)
{
    if (references == NULL || SLOT(task, reference) == NULL) {
        return done_with(PyObject_CallMethodNoArgs(task, name_delist));
    }
    return PySet_Discard(references, SLOT(task, reference)) < 0 ? -1 : 0;
}

static void
arm(Wait *wait, PyObject *current)
{
    wait->woken = 0;
    set_slot(&wait->target, Py_None);
    set_slot(&wait->greenlet, current);
}

/* object.name(callback, context=context), of the loop or a future; 0, or -1. */
static int
with_context(PyObject *object, PyObject *name, PyObject *callback, PyObject *context)
{
    PyObject *args[] = {object, callback, context};
    return done_with(PyObject_VectorcallMethod(name, args, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, names_context));
}

/* Whether a coroutine may wait for what it has yielded, and nothing is in the way. 1, 0, or -1 with an exception. */
static int
can_wait(PyObject *task, PyObject *future)
{
    if (SLOT(task, cancel_now) != Py_False || future == task) {
        return 0;
    }
    PyObject *blocking;
    if (PyObject_GetOptionalAttr(future, name_blocking, &blocking) < 0) {
        return -1;
    }
    Py_XDECREF(blocking);
    if (blocking != Py_True) {
        return 0;
    }
    PyObject *loop = PyObject_CallMethodNoArgs(future, name_get_loop);
    if (loop == NULL) {
        return -1;
    }
    Py_DECREF(loop);
    return loop == SLOT(task, aio);
}

/* Begin to wait for a future; 0, or -1 with an exception. */
static int
wait_on(Engine *engine, PyObject *current, PyObject *task, PyObject *future)
{
    Wakeup *wakeup = (Wakeup *)SLOT(task, wakeup);
    arm((Wait *)SLOT(task, wait), current);
    set_slot(&wakeup->future, future);
    return with_context(future, name_add_done_callback, (PyObject *)wakeup, engine->context);
}

/* Let others run. Returns what was passed by who switched back; the loop is shown then if that is SHOWN. */
static PyObject *
leave(Engine *engine, PyObject *current, int is_shown)
{
    if (is_shown) {
        if (engine->entered == current) {
            return api->switch_back(engine, shown_args); /* in the middle of somebody else's coroutine, as it is */
        }
        if (hide() < 0) {
            return NULL;
        }
    }
    return api->park(engine, NULL);
}

/* What go_on() in Python does, as long as nothing rare happens; it goes on with that. The reference to waits_for is
   taken away: nobody is to keep that until the coroutine ends. */
static PyObject *
go_on(Engine *engine, PyObject *current, PyObject *task, PyObject *coroutine, PyObject *waits_for)
{
    PyObject *aio = Py_NewRef(engine->aio);
    Wait *wait = (Wait *)Py_NewRef(SLOT(task, wait));
    Wakeup *wakeup = (Wakeup *)Py_NewRef(SLOT(task, wakeup));
    PyObject *result = NULL, *interrupted = NULL, *failure = NULL;
    int is_shown = 1;
    for (;;) {
        int begun;
        if (waits_for == Py_None) {
            /* asyncio.sleep(0): after all that the loop has to call now */
            arm(wait, current);
            begun = with_context(aio, name_call_soon, (PyObject *)wakeup, engine->context);
        }
        else {
            begun = can_wait(task, waits_for);
            if (begun == 0) {
                break; /* for go_on() to begin with */
            }
            if (begun > 0) {
                begun = PyObject_SetAttr(waits_for, name_blocking, Py_False);
                begun = begun < 0 ? -1 : wait_on(engine, current, task, waits_for);
            }
        }
        if (begun < 0) {
            goto ended;
        }
        PyObject *came = leave(engine, current, is_shown);
        is_shown = came == shown;
        if (came == NULL) {
            interrupted = take_exception();
            break;
        }
        Py_DECREF(came);
        if (!wait->woken) {
            interrupted = PyObject_CallMethodNoArgs((PyObject *)wait, name_invalid);
            if (interrupted == NULL) {
                interrupted = take_exception();
            }
            break;
        }
        if (waits_for != Py_None) {
            PyObject *got = PyObject_CallMethodNoArgs(waits_for, name_result);
            if (got == NULL) {
                failure = take_exception();
                break;
            }
            Py_DECREF(got);
            set_slot(&wakeup->future, Py_None);
        }
        if (SLOT(task, cancel_now) != Py_False) {
            failure = PyObject_CallOneArg(cancelled, task);
            if (failure == NULL) {
                failure = take_exception();
            }
            break;
        }
        if (!is_shown && show(aio) < 0) {
            goto ended;
        }
        is_shown = 1;
        if (enter_task(aio, task) < 0) {
            goto ended;
        }
        PyObject *out = NULL;
        PySendResult sent = PyIter_Send(coroutine, Py_None, &out);
        if (sent == PYGEN_ERROR) {
            leave_task_failing(aio, task);
            goto ended;
        }
        if (leave_task(aio, task) < 0) {
            Py_DECREF(out);
            goto ended;
        }
        if (sent == PYGEN_RETURN) {
            result = out;
            goto ended;
        }
        Py_SETREF(waits_for, out);
    }
    PyObject *list = PyList_New(3);
    if (list == NULL) {
        Py_XDECREF(interrupted);
        Py_XDECREF(failure);
        goto ended;
    }
    PyList_SET_ITEM(list, 0, waits_for);
    PyList_SET_ITEM(list, 1, interrupted == NULL ? Py_NewRef(Py_None) : interrupted);
    PyList_SET_ITEM(list, 2, failure == NULL ? Py_NewRef(Py_None) : failure);
    waits_for = NULL;
    result = PyObject_CallFunctionObjArgs(
        go_on_function, engine, current, task, coroutine, list, is_shown ? Py_True : Py_False, NULL);
    Py_DECREF(list);
    is_shown = 0;
ended:
    api->over(wait); /* after an interruption a callback of the loop may still be to come */
    if (is_shown) {
        show_or_hide(Py_None);
        if (result != NULL && PyErr_Occurred()) {
            Py_CLEAR(result);
        }
    }
    Py_XDECREF(waits_for);
    Py_DECREF(wakeup);
    Py_DECREF(wait);
    Py_DECREF(aio);
    return result;
}

/* The first step of a coroutine, and the others. */
static PyObject *
steps(Engine *engine, PyObject *current, PyObject *task, PyObject *coroutine)
{
    PyObject *aio = engine->aio;
    if (show(aio) < 0) {
        return NULL;
    }
    Py_INCREF(aio);
    PyObject *out = NULL;
    int failing = enter_task(aio, task) < 0;
    PySendResult sent = PYGEN_ERROR;
    if (!failing) {
        sent = PyIter_Send(coroutine, Py_None, &out);
        if (sent == PYGEN_ERROR) {
            leave_task_failing(aio, task);
            failing = 1;
        }
        else {
            failing = leave_task(aio, task) < 0;
        }
    }
    Py_DECREF(aio);
    if (failing || (sent == PYGEN_NEXT && SLOT(task, listed) == Py_False && enlist(task) < 0)) {
        Py_XDECREF(out);
        show_or_hide(Py_None);
        return NULL;
    }
    if (sent == PYGEN_RETURN) {
        if (hide() < 0) {
            Py_CLEAR(out);
        }
        return out;
    }
    engine->refs++; /* a reason to go on, as any task; to ask all_tasks() is slow */
    PyObject *result = go_on(engine, current, task, coroutine, out);
    engine->refs--;
    if (SLOT(task, listed) == Py_False) {
        PyObject *error = result == NULL ? take_exception() : NULL;
        if (delist(task) < 0) {
            Py_CLEAR(result);
            Py_XDECREF(error);
        }
        else if (error != NULL) {
            put_back(error);
        }
    }
    return result;
}

/* Take the steps of coroutine in the greenlet current, which may block; return its result. */
static PyObject *
drive(Engine *engine, PyObject *current, PyObject *coroutine)
{
    PyObject *task = task_of(engine, current);
    if (task == NULL) {
        return NULL;
    }
    set_slot(&SLOT(task, awaiting), coroutine);
    PyObject *result = steps(engine, current, task, coroutine);
    if (result != NULL && SLOT(task, cancel_now) != Py_False) {
        /* as in asyncio: cancelled when there was nothing left to raise it in */
        Py_CLEAR(result);
        PyObject *error = PyObject_CallOneArg(cancelled, task);
        if (error != NULL) {
            raise(error);
            Py_DECREF(error);
        }
    }
    if (SLOT(task, touched) == Py_False) {
        set_slot(&SLOT(task, awaiting), Py_None);
    }
    else {
        PyObject *error = result == NULL ? take_exception() : NULL;
        set_slot(&SLOT(task, awaiting), Py_None);
        if (done_with(PyObject_CallMethodObjArgs(
                task, name_settle, error == NULL ? Py_None : error, result == NULL ? Py_None : result, NULL)) < 0) {
            Py_CLEAR(result);
            Py_XDECREF(error);
        }
        else if (error != NULL) {
            put_back(error);
        }
    }
    Py_DECREF(task);
    return result;
}

/* Whether a future of this loop, or whatever else the loop has to do, is a reason to go on. */
static int
counts(PyObject *aio, PyObject *future)
{
    if (PyObject_TypeCheck(future, aio_task_type)) {
        return 1;
    }
    PyObject *scheduled;
    int has = PyObject_GetOptionalAttr(aio, name_scheduled, &scheduled);
    Py_XDECREF(scheduled);
    return has < 0 ? -1 : !has;
}

/* Wait in the greenlet current, which may block, for a future or task of the loop; return its result. */
static PyObject *
wait_for_future(Engine *engine, PyObject *current, PyObject *future)
{
    PyObject *done = PyObject_CallMethodNoArgs(future, name_done);
    if (done == NULL) {
        return NULL;
    }
    Py_DECREF(done);
    if (done == Py_True) {
        return PyObject_CallMethodNoArgs(future, name_result);
    }
    PyObject *task = task_of(engine, current);
    if (task == NULL) {
        return NULL;
    }
    int counting = counts(engine->aio, future);
    if (counting < 0 || wait_on(engine, current, task, future) < 0) {
        Py_DECREF(task);
        return NULL;
    }
    Wait *wait = (Wait *)Py_NewRef(SLOT(task, wait));
    Wakeup *wakeup = (Wakeup *)Py_NewRef(SLOT(task, wakeup));
    engine->refs += counting;
    PyObject *came = api->park(engine, NULL);
    engine->refs -= counting;
    if (came != NULL) {
        Py_DECREF(came);
        if (came == shown && hide() < 0) {
            came = NULL;
        }
        else if (!wait->woken) {
            PyObject *error = PyObject_CallMethodNoArgs((PyObject *)wait, name_invalid);
            if (error != NULL) {
                raise(error);
                Py_DECREF(error);
            }
            came = NULL;
        }
    }
    if (came == NULL) {
        PyObject *error = take_exception();
        if (done_with(PyObject_CallMethodOneArg(future, name_remove_done_callback, (PyObject *)wakeup)) == 0) {
            put_back(error);
        }
        else {
            Py_DECREF(error);
        }
    }
    set_slot(&wakeup->future, Py_None);
    api->over(wait);
    Py_DECREF(wakeup);
    Py_DECREF(wait);
    Py_DECREF(task);
    return came == NULL ? NULL : PyObject_CallMethodNoArgs(future, name_result);
}

static int
check_driven(const char *name, PyObject *const *args, Py_ssize_t nargs)
{
    if (is_new(LOOPS | TASKS)) {
        return -1;
    }
    if (nargs == 3 && is_whole(args[0]) && PyObject_TypeCheck(args[1], api->greenlet_type)) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s() takes an engine, a greenlet and what is awaited", name);
    return -1;
}

PyDoc_STRVAR(drive_doc,
"drive(engine, current, coroutine, /)\n--\n\n"
"Take the steps of ``coroutine`` in the greenlet ``current``, which may block; return its result.");

static PyObject *
drive_py(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    return check_driven("drive", args, nargs) < 0 ? NULL : drive((Engine *)args[0], args[1], args[2]);
}

PyDoc_STRVAR(wait_for_future_doc,
"wait_for_future(engine, current, future, /)\n--\n\n"
"Wait in the greenlet ``current``, which may block, for a future or task of the loop; return its result.");

static PyObject *
wait_for_future_py(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    return check_driven("wait_for_future", args, nargs) < 0 ? NULL
                                                            : wait_for_future((Engine *)args[0], args[1], args[2]);
}

/* The engine of this thread's hub; NULL: there is none, or with an exception. A new reference. */
Engine *
engine_here(PyObject **hub)
{
    *hub = api->hub_here(hub_local);
    if (*hub == NULL || *hub == Py_None) {
        Py_CLEAR(*hub);
        return NULL;
    }
    PyObject *engine = api->loop_of(*hub);
    if (engine != NULL && !is_whole(engine)) {
        Py_CLEAR(engine);
    }
    if (engine == NULL) {
        Py_CLEAR(*hub);
    }
    return (Engine *)engine;
}

PyDoc_STRVAR(await_quickly_doc,
"await_quickly(awaitable, /)\n--\n\n"
"What ``await_`` does where nothing is to be done first; else ELSEWHERE.");

static PyObject *
await_quickly(PyObject *module, PyObject *awaitable)
{
    PyObject *hub;
    if (is_new(LOOPS | TASKS)) {
        return NULL;
    }
    Engine *engine = engine_here(&hub);
    if (engine == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(elsewhere);
    }
    PyObject *result = NULL;
    PyObject *current = api->current();
    PyObject *running = current == NULL ? NULL : api->probe(engine, NULL);
    if (running != NULL) {
        if (running != Py_None || current == hub) {
            result = Py_NewRef(elsewhere);
        }
        else if (PyCoro_CheckExact(awaitable)) {
            result = engine->shared && (engine->running || !engine->owned) ? drive(engine, current, awaitable)
                                                                            : Py_NewRef(elsewhere);
        }
        else if (PyObject_TypeCheck(awaitable, future_type)) {
            PyObject *loop = PyObject_CallMethodNoArgs(awaitable, name_get_loop);
            if (loop != NULL) {
                Py_DECREF(loop);
                result = loop == engine->aio ? wait_for_future(engine, current, awaitable) : Py_NewRef(elsewhere);
            }
        }
        else {
            result = Py_NewRef(elsewhere);
        }
        Py_DECREF(running);
    }
    Py_XDECREF(current);
    Py_DECREF(hub);
    Py_DECREF(engine);
    return result;
}

/* ---- the module --------------------------------------------------------------------------------------------- */

void
keep(PyObject **where, PyObject *object)
{
    Py_XSETREF(*where, Py_NewRef(object));
}

/* The same; None: there is none. */
static void
keep_optional(PyObject **where, PyObject *object)
{
    Py_XSETREF(*where, object == Py_None ? NULL : Py_NewRef(object));
}

PyDoc_STRVAR(use_loops_doc,
"use_loops(set_running, current_task, enter_task, leave_task, current_tasks, shown, failed, /)\n--\n\n"
"Called once, by bridge._aio.entering. current_tasks: the dictionary of the current tasks, or None.");

static PyObject *
use_loops(PyObject *module, PyObject *args)
{
    PyObject *given[7];
    if (!PyArg_ParseTuple(args, "OOOOOOO:use_loops", &given[0], &given[1], &given[2], &given[3], &given[4], &given[5],
                          &given[6])) {
        return NULL;
    }
    if (given[4] != Py_None && !PyDict_CheckExact(given[4])) {
        PyErr_SetString(PyExc_TypeError, "use_loops(): current_tasks must be a dict or None");
        return NULL;
    }
    keep(&set_running, given[0]);
    keep(&get_current_task, given[1]);
    keep(&enter_function, given[2]);
    keep(&leave_function, given[3]);
    keep_optional(&current_tasks, given[4]);
    keep(&shown, given[5]);
    keep(&failed, given[6]);
    PyObject *made = PyTuple_Pack(1, given[5]);
    if (made == NULL) {
        return NULL;
    }
    Py_XSETREF(shown_args, made);
    known |= LOOPS;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(use_tasks_doc,
"use_tasks(task_class, wait_class, future_class, aio_task_class, references, task_of, cancelled, go_on, hub_local,\n"
"elsewhere, /)\n--\n\n"
"Called once, by bridge._aio.driving. references: the set of those of all tasks, or None.");

static PyObject *
use_tasks(PyObject *module, PyObject *args)
{
    PyObject *classes[4], *given[6];
    if (!PyArg_ParseTuple(args, "O!O!O!O!OOOOOO:use_tasks", &PyType_Type, &classes[0], &PyType_Type, &classes[1],
                          &PyType_Type, &classes[2], &PyType_Type, &classes[3], &given[0], &given[1], &given[2],
                          &given[3], &given[4], &given[5])) {
        return NULL;
    }
    PyTypeObject *type = (PyTypeObject *)classes[0];
    if (find_slot(type, "engine", T_OBJECT_EX, &found.engine) < 0 || find_slot(type, "aio", T_OBJECT_EX, &found.aio) < 0
        || find_slot(type, "awaiting", T_OBJECT_EX, &found.awaiting) < 0 || find_slot(type, "touched", T_OBJECT_EX, &found.touched) < 0
        || find_slot(type, "wait", T_OBJECT_EX, &found.wait) < 0 || find_slot(type, "wakeup", T_OBJECT_EX, &found.wakeup) < 0
        || find_slot(type, "_listed", T_OBJECT_EX, &found.listed) < 0 || find_slot(type, "_cancel_now", T_OBJECT_EX, &found.cancel_now) < 0
        || find_slot(type, "_told", T_OBJECT_EX, &found.told) < 0 || find_slot(type, "_reference", T_OBJECT_EX, &found.reference) < 0) {
        return NULL;
    }
    if (given[0] != Py_None && !PySet_CheckExact(given[0])) {
        PyErr_SetString(PyExc_TypeError, "use_tasks(): references must be a set or None");
        return NULL;
    }
    if (!PyType_IsSubtype((PyTypeObject *)classes[1], api->wait_type)) {
        PyErr_SetString(PyExc_TypeError, "use_tasks(): the class of waits is not that of the compiled engine");
        return NULL;
    }
    if (Py_TYPE(given[4]) != api->hub_local_type) {
        PyErr_SetString(PyExc_TypeError, "use_tasks(): the hub is not found in the compiled way");
        return NULL;
    }
    at = found;
    keep((PyObject **)&task_class, classes[0]);
    keep((PyObject **)&wait_class, classes[1]);
    keep((PyObject **)&future_type, classes[2]);
    keep((PyObject **)&aio_task_type, classes[3]);
    keep_optional(&references, given[0]);
    keep(&task_of_function, given[1]);
    keep(&cancelled, given[2]);
    keep(&go_on_function, given[3]);
    keep(&hub_local, given[4]);
    keep(&elsewhere, given[5]);
    known |= TASKS;
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"drive", (PyCFunction)(void (*)(void))drive_py, METH_FASTCALL, drive_doc},
    {"wait_for_future", (PyCFunction)(void (*)(void))wait_for_future_py, METH_FASTCALL, wait_for_future_doc},
    {"await_quickly", await_quickly, METH_O, await_quickly_doc},
    {"use_loops", use_loops, METH_VARARGS, use_loops_doc},
    {"use_tasks", use_tasks, METH_VARARGS, use_tasks_doc},
    {NULL, NULL, 0, NULL},
};

static const struct name all_names[] = {
    {&name_parent, "parent"},
    {&name_bridge_task, "_bridge_task"},
    {&name_call_soon, "call_soon"},
    {&name_add_done_callback, "add_done_callback"},
    {&name_remove_done_callback, "remove_done_callback"},
    {&name_blocking, "_asyncio_future_blocking"},
    {&name_get_loop, "get_loop"},
    {&name_result, "result"},
    {&name_done, "done"},
    {&name_scheduled, "_scheduled"},
    {&name_enlist, "enlist"},
    {&name_delist, "delist"},
    {&name_settle, "settle"},
    {&name_invalid, "_invalid"},
};

int
intern_names(const struct name *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (intern(names[i].where, names[i].text) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
execute(PyObject *module)
{
    if (claim_for_interpreter() < 0 || (api = import_switching()) == NULL) {
        return -1;
    }
    if (intern_names(all_names, Py_ARRAY_LENGTH(all_names)) < 0) {
        return -1;
    }
    if (empty == NULL && (empty = PyTuple_New(0)) == NULL) {
        return -1;
    }
    if (names_context == NULL && (names_context = Py_BuildValue("(s)", "context")) == NULL) {
        return -1;
    }
    if (add_entering(module) < 0 || add_calls(module) < 0) {
        return -1;
    }
    return add_portals(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bridge._aio._driving",
    .m_doc = "Taking the steps of coroutines in greenlets, compiled.",
    .m_size = 0,
    .m_methods = module_methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__driving(void)
{
    return PyModuleDef_Init(&definition);
}
