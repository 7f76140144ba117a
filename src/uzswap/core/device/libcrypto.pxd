from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "libcrypto.h" nogil:
    const uint8_t *uz_no_key
    int uz_gcm_load()
    void *uz_gcm_new(const uint8_t *key, int seals)
    void uz_gcm_free(void *x)
    int uz_gcm_rekey(void *x, const uint8_t *key)
    int uz_gcm_seal(void *x, uint64_t when, uint32_t where, uint8_t *text, uint32_t n, uint8_t *tag)
    int uz_gcm_open(
        void *x, uint64_t when, uint32_t where, const uint8_t *text, uint32_t n, const uint8_t *tag, uint8_t *out
    )
    void uz_gcm_peek(void *x, uint64_t when, uint32_t where, const uint8_t *text, uint32_t n, uint8_t *out)
