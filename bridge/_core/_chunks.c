/* Memory for the frames of greenlets: a cache behind CPython's arena allocator.

   Theory of operation
   ===================

   CPython keeps the frames of Python functions in chunks of 16 KiB. Each greenlet has chunks of its own, which
   CPython takes from the arena allocator when the first Python function is entered, and greenlet gives back
   when the greenlet ends. The default arena allocator is mmap() and munmap(): two system calls, a page fault
   and a page of zeros for each greenlet, more than all the rest of spawn and first switch taken together.

   So install() puts an allocator in front of the one that is there (PyObject_SetArenaAllocator is the
   documented way). It answers for requests of exactly one chunk and leaves all others, obmalloc's arenas
   above all, to the allocator that it found.

   Chunks are cut from slabs: 1 MiB, aligned to 1 MiB, so that the slab of a chunk is found by masking its
   address. The header of a slab takes the place of its first chunk. The chunks of a slab that have never been
   used have never been touched and cost no memory. A chunk that install() did not hand out (the main thread's
   first one, say) is recognised as its slab is not in the table, and goes back to where it came from.

   Slabs of which a part is handed out are in a list. A slab that gets its first free chunk goes to the end of
   the list and chunks are taken from its head, so that the slabs at the end have time to become empty. Empty
   slabs are in a list of their own, the latest first, and used when the other list is.

   EMPTY_KEPT empty slabs are kept for good, more of them for a while: who has had many greenlets will often
   have as many again soon, and a page fault for each would cost a quarter of its life. Now and then, when
   chunks come back, those are given back to the system that have been empty for a second or more; a few at a
   time, as that takes long. (A process in which no greenlet ends keeps what it has; a thread or a timer for
   that was not found worth it.)

   What is not promised by the interpreter, that only one thread at a time calls us (each subinterpreter may
   have a lock of its own, and a thread state is deleted without any), a spin lock does; nobody ever waits
   while holding it, but for mmap() and munmap(). fork() takes it, so the child finds it free.

   The way not taken: keeping finished greenlets and using them again. The identity of a greenlet leaks to
   users, and with it their locals. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if !defined(_WIN32) && !defined(Py_GIL_DISABLED)
#define SUPPORTED 1
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>
#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif
#endif

#ifdef SUPPORTED

/* DATA_STACK_CHUNK_SIZE of pystate.c, the same in CPython 3.11 to 3.14. If it ever differs, no request is of
   this size and nothing is cached. */
#define CHUNK ((size_t)16 * 1024)
#define SLAB ((size_t)1024 * 1024)
#define CHUNKS_PER_SLAB (SLAB / CHUNK - 1)
/* so many empty slabs are kept for good: 2,000 chunks, of which mostly a single page each has been touched */
#define EMPTY_KEPT 32
/* chunks that come back between two looks for slabs that have been empty for long, and how many go at a time */
#define LOOK 64
#define GIVEN_BACK 16

typedef struct chunk {
    struct chunk *next;
} chunk;

typedef struct slab {
    struct slab *next, *previous; /* in one of the lists */
    chunk *returned;              /* chunks that came back */
    unsigned fresh;               /* how many chunks at the end of the slab have never been handed out */
    unsigned used;                /* how many are handed out */
    time_t emptied;               /* in seconds */
} slab;

typedef struct {
    slab *first, *last;
} list;

static PyObjectArenaAllocator original;
static int installed;

static atomic_flag lock = ATOMIC_FLAG_INIT;
static list partial, empty;
static size_t slabs, empty_slabs, used_chunks;
static unsigned returns; /* chunks that have come back since the last look */
static time_t now;       /* when that was */

/* The slabs, by address: open addressing, at most half full. */
static uintptr_t *table;
static size_t table_size; /* a power of two, or 0 */

static void
acquire(void)
{
    while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire)) {
    }
}

static void
release(void)
{
    atomic_flag_clear_explicit(&lock, memory_order_release);
}

static size_t
place(uintptr_t address)
{
    uint64_t hash = (uint64_t)(address / SLAB) * UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)(hash >> 32) & (table_size - 1);
}

static int
known(uintptr_t address)
{
    if (table_size == 0) {
        return 0;
    }
    for (size_t i = place(address); table[i] != 0; i = (i + 1) & (table_size - 1)) {
        if (table[i] == address) {
            return 1;
        }
    }
    return 0;
}

static void
put(uintptr_t address)
{
    size_t i = place(address);
    while (table[i] != 0) {
        i = (i + 1) & (table_size - 1);
    }
    table[i] = address;
}

static int
remember(uintptr_t address)
{
    if ((slabs + 1) * 2 > table_size) {
        size_t old_size = table_size;
        uintptr_t *old = table;
        uintptr_t *larger = calloc(old_size ? old_size * 2 : 64, sizeof(uintptr_t));
        if (larger == NULL) {
            return 0;
        }
        table = larger;
        table_size = old_size ? old_size * 2 : 64;
        for (size_t i = 0; i < old_size; i++) {
            if (old[i] != 0) {
                put(old[i]);
            }
        }
        free(old);
    }
    put(address);
    return 1;
}

static void
forget(uintptr_t address)
{
    size_t mask = table_size - 1, i = place(address);
    while (table[i] != address) {
        i = (i + 1) & mask;
    }
    /* move back what would not be found any more across the gap */
    for (size_t j = (i + 1) & mask; table[j] != 0; j = (j + 1) & mask) {
        size_t home = place(table[j]);
        if (((j - home) & mask) >= ((j - i) & mask)) {
            table[i] = table[j];
            i = j;
        }
    }
    table[i] = 0;
}

static void
link_last(list *l, slab *s)
{
    s->next = NULL;
    s->previous = l->last;
    if (l->last != NULL) {
        l->last->next = s;
    }
    else {
        l->first = s;
    }
    l->last = s;
}

static void
link_first(list *l, slab *s)
{
    s->previous = NULL;
    s->next = l->first;
    if (l->first != NULL) {
        l->first->previous = s;
    }
    else {
        l->last = s;
    }
    l->first = s;
}

static void
unlink_from(list *l, slab *s)
{
    if (s->previous != NULL) {
        s->previous->next = s->next;
    }
    else {
        l->first = s->next;
    }
    if (s->next != NULL) {
        s->next->previous = s->previous;
    }
    else {
        l->last = s->previous;
    }
}

static slab *
new_slab(void)
{
    /* twice as much as is needed, as the system aligns to pages; what is too much goes back */
    char *area = mmap(NULL, 2 * SLAB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) {
        return NULL;
    }
    char *start = (char *)(((uintptr_t)area + SLAB - 1) & ~(uintptr_t)(SLAB - 1));
    if (start != area) {
        munmap(area, (size_t)(start - area));
    }
    if (start + SLAB != area + 2 * SLAB) {
        munmap(start + SLAB, (size_t)(area + 2 * SLAB - (start + SLAB)));
    }
    if (!remember((uintptr_t)start)) {
        munmap(start, SLAB);
        return NULL;
    }
    slab *s = (slab *)start;
    s->returned = NULL;
    s->fresh = CHUNKS_PER_SLAB;
    s->used = 0;
    slabs++;
    return s;
}

static void
look_at_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    now = t.tv_sec;
    returns = 0;
}

/* Take out some slabs that have been empty for long, linked by ``next``. */
static slab *
look_for_old(void)
{
    slab *old = NULL;
    look_at_clock();
    for (int i = 0; i < GIVEN_BACK && empty_slabs > EMPTY_KEPT; i++) {
        slab *s = empty.last;
        if (now - s->emptied < 2) {
            break;
        }
        unlink_from(&empty, s);
        forget((uintptr_t)s);
        slabs--;
        empty_slabs--;
        s->next = old;
        old = s;
    }
    return old;
}

static void *
chunk_alloc(void *context, size_t size)
{
    if (size != CHUNK) {
        return original.alloc(original.ctx, size);
    }
    void *result = NULL;
    acquire();
    slab *s = partial.first;
    if (s == NULL) {
        s = empty.first;
        if (s != NULL) {
            unlink_from(&empty, s);
            empty_slabs--;
        }
        else {
            s = new_slab();
        }
        if (s != NULL) {
            link_last(&partial, s);
        }
    }
    if (s != NULL) {
        if (s->returned != NULL) {
            result = s->returned;
            s->returned = s->returned->next;
        }
        else {
            result = (char *)s + SLAB - CHUNK * s->fresh;
            s->fresh--;
        }
        s->used++;
        if (s->returned == NULL && s->fresh == 0) {
            unlink_from(&partial, s);
        }
        used_chunks++;
    }
    release();
    return result;
}

static void
chunk_free(void *context, void *pointer, size_t size)
{
    if (size == CHUNK) {
        slab *s = (slab *)((uintptr_t)pointer & ~(uintptr_t)(SLAB - 1));
        slab *old = NULL;
        acquire();
        if (known((uintptr_t)s)) {
            if (s->returned == NULL && s->fresh == 0) {
                link_last(&partial, s);
            }
            chunk *c = pointer;
            c->next = s->returned;
            s->returned = c;
            used_chunks--;
            if (--s->used == 0) {
                unlink_from(&partial, s);
                s->emptied = now;
                link_first(&empty, s);
                empty_slabs++;
            }
            if (++returns >= LOOK) {
                old = look_for_old();
            }
            release();
            while (old != NULL) {
                slab *next = old->next;
                munmap(old, SLAB);
                old = next;
            }
            return;
        }
        release();
    }
    original.free(original.ctx, pointer, size);
}

#endif /* SUPPORTED */

PyDoc_STRVAR(install_doc,
"install() -> bool\n\n"
"Cache the memory of greenlets' frames from now on, in the whole process. Calling it again changes nothing.\n\n"
"Returns false where it isn't supported (Windows, free-threaded builds). Does not block.");

static PyObject *
install(PyObject *module, PyObject *ignored)
{
#ifdef SUPPORTED
    if (!installed) {
        if (pthread_atfork(acquire, release, release) != 0) {
            return PyErr_NoMemory();
        }
        look_at_clock();
        PyObject_GetArenaAllocator(&original);
        PyObjectArenaAllocator ours = {NULL, chunk_alloc, chunk_free};
        PyObject_SetArenaAllocator(&ours);
        installed = 1;
    }
    Py_RETURN_TRUE;
#else
    Py_RETURN_FALSE;
#endif
}

PyDoc_STRVAR(statistics_doc,
"statistics() -> tuple[int, int, int]\n\n"
"Return how many slabs of 1 MiB there are, how many of them are empty, and how many chunks are in use.");

static PyObject *
statistics(PyObject *module, PyObject *ignored)
{
#ifdef SUPPORTED
    acquire();
    size_t all = slabs, unused = empty_slabs, used = used_chunks;
    release();
    return Py_BuildValue("nnn", (Py_ssize_t)all, (Py_ssize_t)unused, (Py_ssize_t)used);
#else
    return Py_BuildValue("iii", 0, 0, 0);
#endif
}

static PyMethodDef methods[] = {
    {"install", install, METH_NOARGS, install_doc},
    {"statistics", statistics, METH_NOARGS, statistics_doc},
    {NULL, NULL, 0, NULL},
};

/* Of process-wide state there is one copy, so the module is for all interpreters: single-phase would refuse
   those with a lock of their own. */
static PyModuleDef_Slot slots[] = {
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bridge._core._chunks",
    .m_doc = "A cache of the memory that greenlets' frames live in.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__chunks(void)
{
    return PyModuleDef_Init(&definition);
}
