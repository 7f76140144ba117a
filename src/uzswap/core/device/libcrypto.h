/* AES-256-GCM of libcrypto.  The library is looked for when it is first wanted: nothing of it is needed to build, and
 * who has none has everything but encryption.  The prototypes are those of <openssl/evp.h>, which has not changed them
 * from 1.1.0 to 3.x.
 *
 * A context has the expanded key, in memory of libcrypto's: it is made for one read or one write, and libcrypto
 * overwrites it when it is freed.  (A new one costs 0.3 us, sealing a record of 2000 bytes 0.7 us: OpenSSL 3.0, 2026-11.)
 */
#ifndef UZ_LIBCRYPTO_H
#define UZ_LIBCRYPTO_H

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { UZ_GCM_GET_TAG = 0x10, UZ_GCM_SET_TAG = 0x11, UZ_GCM_TAG_BYTES = 16, UZ_GCM_NONCE_BYTES = 12 };

static struct {
    const void *aes_256_gcm; /* NULL: not loaded */
    void *(*ctx_new)(void);
    void (*ctx_free)(void *);
    int (*ctx_ctrl)(void *, int, int, void *);
    int (*init)(void *, const void *, void *, const unsigned char *, const unsigned char *, int);
    int (*update)(void *, unsigned char *, int *, const unsigned char *, int);
    int (*final)(void *, unsigned char *, int *);
    void (*clear_errors)(void);
} uz_gcm;

/* 0, or -EOPNOTSUPP: there is no libcrypto, or it has no AES-256-GCM.  The caller serialises. */
static int uz_gcm_load(void) {
    static const char *const names[] = { "libcrypto.so.3", "libcrypto.so.1.1" };
    if (uz_gcm.aes_256_gcm) return 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (!lib) continue;
        int (*start)(uint64_t, const void *) = dlsym(lib, "OPENSSL_init_crypto");
        void *(*fetch)(void *, const char *, const char *) = dlsym(lib, "EVP_CIPHER_fetch");
        const void *(*get)(void) = dlsym(lib, "EVP_aes_256_gcm");
        uz_gcm.ctx_new = dlsym(lib, "EVP_CIPHER_CTX_new");
        uz_gcm.ctx_free = dlsym(lib, "EVP_CIPHER_CTX_free");
        uz_gcm.ctx_ctrl = dlsym(lib, "EVP_CIPHER_CTX_ctrl");
        uz_gcm.init = dlsym(lib, "EVP_CipherInit_ex");
        uz_gcm.update = dlsym(lib, "EVP_CipherUpdate");
        uz_gcm.final = dlsym(lib, "EVP_CipherFinal_ex");
        uz_gcm.clear_errors = dlsym(lib, "ERR_clear_error");
        if (!start || !(fetch || get) || !uz_gcm.ctx_new || !uz_gcm.ctx_free || !uz_gcm.ctx_ctrl || !uz_gcm.init
            || !uz_gcm.update || !uz_gcm.final || !uz_gcm.clear_errors)
            continue;
        /* Pages are read until the process is gone, so nothing may be taken down at its exit. */
        start(0x00080000 /* OPENSSL_INIT_NO_ATEXIT */, NULL);
        /* Fetched once: what 1.1 has no word for, 3 does anew for each context otherwise. */
        uz_gcm.aes_256_gcm = fetch ? fetch(NULL, "AES-256-GCM", NULL) : get();
        if (uz_gcm.aes_256_gcm) return 0;
        uz_gcm.clear_errors();
    }
    return -EOPNOTSUPP;
}

/* For one thread; NULL without memory. */
static void *uz_gcm_new(const uint8_t *key, int seals) {
    void *x = uz_gcm.ctx_new();
    if (x && uz_gcm.init(x, uz_gcm.aes_256_gcm, NULL, key, NULL, seals) == 1) return x;
    uz_gcm.ctx_free(x);
    uz_gcm.clear_errors();
    return NULL;
}

static void uz_gcm_free(void *x) { uz_gcm.ctx_free(x); }

/* Of a context that has nothing to open at the moment. */
static const uint8_t uz_no_key[32];

/* Give a context that has opened another key: it needs no memory.  0 or -ENOMEM. */
static int uz_gcm_rekey(void *x, const uint8_t *key) {
    if (uz_gcm.init(x, NULL, NULL, key, NULL, 0) == 1) return 0;
    uz_gcm.clear_errors();
    return -ENOMEM;
}

static int uz_gcm_nonce(void *x, uint64_t when, uint32_t where) {
    unsigned char nonce[UZ_GCM_NONCE_BYTES];
    memcpy(nonce, &when, sizeof when);
    memcpy(nonce + sizeof when, &where, sizeof where);
    return uz_gcm.init(x, NULL, NULL, NULL, nonce, -1) == 1;
}

/* Encrypt n bytes where they are.  0 or -ENOMEM: then they are as good as gone. */
static int uz_gcm_seal(void *x, uint64_t when, uint32_t where, uint8_t *text, uint32_t n, uint8_t *tag) {
    int done = 0, rest = 0;
    if (uz_gcm_nonce(x, when, where) && uz_gcm.update(x, text, &done, text, (int)n) == 1
        && uz_gcm.final(x, text + done, &rest) == 1
        && uz_gcm.ctx_ctrl(x, UZ_GCM_GET_TAG, UZ_GCM_TAG_BYTES, tag) == 1)
        return 0;
    uz_gcm.clear_errors();
    return -ENOMEM;
}

/* 0; -EBADMSG when they are not what was sealed then and there.  What is in out then is nobody's. */
static int uz_gcm_open(
    void *x, uint64_t when, uint32_t where, const uint8_t *text, uint32_t n, const uint8_t *tag, uint8_t *out) {
    uint8_t copy[UZ_GCM_TAG_BYTES];
    int done = 0, rest = 0;
    memcpy(copy, tag, sizeof copy);
    if (uz_gcm_nonce(x, when, where) && uz_gcm.update(x, out, &done, text, (int)n) == 1
        && uz_gcm.ctx_ctrl(x, UZ_GCM_SET_TAG, UZ_GCM_TAG_BYTES, copy) == 1 && uz_gcm.final(x, out + done, &rest) == 1)
        return 0;
    uz_gcm.clear_errors();
    return -EBADMSG;
}

/* The first n bytes, whoever wrote them. */
static void uz_gcm_peek(void *x, uint64_t when, uint32_t where, const uint8_t *text, uint32_t n, uint8_t *out) {
    int done = 0;
    memset(out, 0, n);
    if (!uz_gcm_nonce(x, when, where) || uz_gcm.update(x, out, &done, text, (int)n) != 1) uz_gcm.clear_errors();
}

#endif
