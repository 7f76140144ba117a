/* Blosc's byte shuffle: the first bytes of all items, then the second bytes, and so on; the odd rest as it is.

   Items of 2, 4, 8 and 16 bytes go through vector registers.  In a block of 16 items the address of a byte is (item,
   byte in the item), 4 and k bits, and is to become (byte, item): a rotation of these bits by 4 to the left.  Interleaving
   the first half of some memory with the second rotates by 1; so four rounds of it shuffle, and k rounds unshuffle.  GCC
   and clang turn an interleave into one instruction on x86-64 and on ARM (measured against plain loops, GCC 12, SSE2,
   64 KiB, 2026-11: see docs/benchmarks.md). */

#ifndef UZSWAP_SHUFFLE_H
#define UZSWAP_SHUFFLE_H

#include <stdint.h>
#include <string.h>

typedef uint8_t uz_v16 __attribute__((vector_size(16)));

#if defined(__clang__)
#define UZ_LOW(a, b) \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define UZ_HIGH(a, b) \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#else
#define UZ_LOW(a, b) \
    __builtin_shuffle(a, b, (uz_v16){0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23})
#define UZ_HIGH(a, b) \
    __builtin_shuffle(a, b, (uz_v16){8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31})
#endif

/* One round over m vectors; m and rounds are constants wherever this is inlined. */
static inline __attribute__((always_inline)) void uz_interleave(uz_v16 *v, int m) {
    uz_v16 w[16];
    for (int i = 0; i < m / 2; i++) {
        w[2 * i] = UZ_LOW(v[i], v[i + m / 2]);
        w[2 * i + 1] = UZ_HIGH(v[i], v[i + m / 2]);
    }
    for (int i = 0; i < m; i++) v[i] = w[i];
}

static inline __attribute__((always_inline)) uint32_t uz_shuffle_blocks(
    const uint8_t *src, uint8_t *dst, uint32_t n, const int item) {
    uint32_t i;
    uz_v16 v[16];
    for (i = 0; i + 16 <= n; i += 16) {
        for (int j = 0; j < item; j++) memcpy(&v[j], src + (size_t)i * item + 16 * j, 16);
        for (int round = 0; round < 4; round++) uz_interleave(v, item);
        for (int j = 0; j < item; j++) memcpy(dst + (size_t)j * n + i, &v[j], 16);
    }
    return i;
}

static inline __attribute__((always_inline)) uint32_t uz_unshuffle_blocks(
    const uint8_t *src, uint8_t *dst, uint32_t n, const int item, const int rounds) {
    uint32_t i;
    uz_v16 v[16];
    for (i = 0; i + 16 <= n; i += 16) {
        for (int j = 0; j < item; j++) memcpy(&v[j], src + (size_t)j * n + i, 16);
        for (int round = 0; round < rounds; round++) uz_interleave(v, item);
        for (int j = 0; j < item; j++) memcpy(dst + (size_t)i * item + 16 * j, &v[j], 16);
    }
    return i;
}

static inline void uz_shuffle(const uint8_t *src, uint8_t *dst, uint32_t size, uint32_t item) {
    uint32_t n = size / item, done = 0;
    if (item == 2) done = uz_shuffle_blocks(src, dst, n, 2);
    else if (item == 4) done = uz_shuffle_blocks(src, dst, n, 4);
    else if (item == 8) done = uz_shuffle_blocks(src, dst, n, 8);
    else if (item == 16) done = uz_shuffle_blocks(src, dst, n, 16);
    if (done < n)
        for (uint32_t j = 0; j < item; j++)
            for (uint32_t i = done; i < n; i++) dst[(size_t)j * n + i] = src[(size_t)i * item + j];
    memcpy(dst + (size_t)n * item, src + (size_t)n * item, size - n * item);
}

static inline void uz_unshuffle(const uint8_t *src, uint8_t *dst, uint32_t size, uint32_t item) {
    uint32_t n = size / item, done = 0;
    if (item == 2) done = uz_unshuffle_blocks(src, dst, n, 2, 1);
    else if (item == 4) done = uz_unshuffle_blocks(src, dst, n, 4, 2);
    else if (item == 8) done = uz_unshuffle_blocks(src, dst, n, 8, 3);
    else if (item == 16) done = uz_unshuffle_blocks(src, dst, n, 16, 4);
    for (uint32_t i = done; i < n; i++)
        for (uint32_t j = 0; j < item; j++) dst[(size_t)i * item + j] = src[(size_t)j * n + i];
    memcpy(dst + (size_t)n * item, src + (size_t)n * item, size - n * item);
}

#endif
