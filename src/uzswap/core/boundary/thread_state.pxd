cdef extern from *:
    """
    #include <pthread.h>

    static pthread_key_t uz_kept;  /* the state of a thread that keeps it; made once, and never deleted */
    static pthread_once_t uz_kept_once = PTHREAD_ONCE_INIT;
    static int uz_kept_failed;

    /* The end of such a thread.  Python's own note of its state may be gone by now: glibc forgets the values of all keys
     * one after the other.  Without an interpreter the state is gone, too. */
    static void uz_free_thread_state(void *kept) {
        if (!Py_IsInitialized()) return;
        PyEval_RestoreThread((PyThreadState *)kept);
        PyThreadState_Clear((PyThreadState *)kept);
        PyThreadState_DeleteCurrent();  /* and gives the GIL back */
    }
    static void uz_make_kept(void) { uz_kept_failed = pthread_key_create(&uz_kept, uz_free_thread_state); }

    /* The callback that this is called in has the state once, and this once more. */
    static int uz_keep_thread_state(void) {
        pthread_once(&uz_kept_once, uz_make_kept);
        if (uz_kept_failed) return uz_kept_failed;
        if (pthread_getspecific(uz_kept)) return 0;
        int failed = pthread_setspecific(uz_kept, PyThreadState_Get());
        if (!failed) PyGILState_Ensure();
        return failed;
    }
    """
    int uz_keep_thread_state()
