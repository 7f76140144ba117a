"""A gate that operations pass, and that fork() shuts: then nothing is half done, and nobody begins anything.

An operation is what other threads may find half done between two holds of a lock: bringing pages in, storing a batch.
It goes through the gate, and leaves it when all of it is done, or where it can wait for as long as need be (breathe).
A gate is shut by a fork alone, and never waited for with a lock held; a thread within may wait for others within.
"""

cdef extern from *:
    """
    #ifndef UZSWAP_GATE_H
    #define UZSWAP_GATE_H
    #include <pthread.h>
    typedef struct {
        int inside, shut;
        pthread_mutex_t lock;   /* of who waits for a change of these two */
        pthread_cond_t changed;
    } uz_gate;
    static inline void uz_gate_init(uz_gate *g) {
        g->inside = g->shut = 0;
        pthread_mutex_init(&g->lock, NULL);
        pthread_cond_init(&g->changed, NULL);
    }
    static inline void uz_gate_destroy(uz_gate *g) {
        pthread_mutex_destroy(&g->lock);
        pthread_cond_destroy(&g->changed);
    }
    static inline void uz_gate_tell(uz_gate *g) {
        pthread_mutex_lock(&g->lock);
        pthread_cond_broadcast(&g->changed);
        pthread_mutex_unlock(&g->lock);
    }
    static inline int uz_is_shut(uz_gate *g) { return __atomic_load_n(&g->shut, __ATOMIC_SEQ_CST); }
    static inline void uz_leave(uz_gate *g) {
        if (__atomic_sub_fetch(&g->inside, 1, __ATOMIC_SEQ_CST) == 0 && __builtin_expect(uz_is_shut(g), 0))
            uz_gate_tell(g);
    }
    /* For what those within wait for: also through a gate that is shut. */
    static inline void uz_enter_anyway(uz_gate *g) { __atomic_add_fetch(&g->inside, 1, __ATOMIC_SEQ_CST); }
    /* Whether the gate was open. */
    static inline int uz_try_enter(uz_gate *g) {
        uz_enter_anyway(g);
        if (__builtin_expect(!uz_is_shut(g), 1)) return 1;
        uz_leave(g);
        return 0;
    }
    static inline void uz_enter(uz_gate *g) {
        while (!uz_try_enter(g)) {
            pthread_mutex_lock(&g->lock);
            while (uz_is_shut(g)) pthread_cond_wait(&g->changed, &g->lock);
            pthread_mutex_unlock(&g->lock);
        }
    }
    /* Within an operation, where nothing is half done and no lock is held: lets a fork go first. */
    static inline void uz_breathe(uz_gate *g) {
        if (__builtin_expect(uz_is_shut(g), 0)) { uz_leave(g); uz_enter(g); }
    }
    static inline void uz_shut(uz_gate *g) { __atomic_store_n(&g->shut, 1, __ATOMIC_SEQ_CST); }
    static inline int uz_is_empty(uz_gate *g) { return __atomic_load_n(&g->inside, __ATOMIC_SEQ_CST) == 0; }
    /* Waits until nobody is within, or `never` says that this will not be. */
    static inline void uz_wait_empty(uz_gate *g, const int *never) {
        pthread_mutex_lock(&g->lock);
        while (!uz_is_empty(g) && !(never && __atomic_load_n(never, __ATOMIC_SEQ_CST)))
            pthread_cond_wait(&g->changed, &g->lock);
        pthread_mutex_unlock(&g->lock);
    }
    static inline void uz_open(uz_gate *g) {
        __atomic_store_n(&g->shut, 0, __ATOMIC_SEQ_CST);
        uz_gate_tell(g);
    }
    #endif
    """
    ctypedef struct uz_gate:
        pass
    void uz_gate_init(uz_gate *g) nogil
    void uz_gate_destroy(uz_gate *g) nogil
    void uz_gate_tell(uz_gate *g) nogil
    int uz_is_shut(uz_gate *g) nogil
    void uz_leave(uz_gate *g) nogil
    void uz_enter_anyway(uz_gate *g) nogil
    int uz_try_enter(uz_gate *g) nogil
    void uz_enter(uz_gate *g) nogil
    void uz_breathe(uz_gate *g) nogil
    void uz_shut(uz_gate *g) nogil
    int uz_is_empty(uz_gate *g) nogil
    void uz_wait_empty(uz_gate *g, const int *never) nogil
    void uz_open(uz_gate *g) nogil
