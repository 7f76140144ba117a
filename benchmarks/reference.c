/* What the machine can do at best: the bare library calls and system calls that the engine cannot do without.
 *
 * Compiled and loaded by benchmarks/reference.py.  Every function works on memory that the caller has touched before.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <lz4.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

/* LZ4_compress_default over n pages, all into one scratch buffer; the compressed bytes, or -1. */
int64_t reference_compress(const char *pages, int64_t n, int page, char *scratch, int capacity)
{
    int64_t total = 0;
    for (int64_t i = 0; i < n; i++) {
        int length = LZ4_compress_default(pages + i * page, scratch, page, capacity);
        if (length <= 0)
            return -1;
        total += length;
    }
    return total;
}

/* The same, kept: blob i starts at offsets[i] and is lengths[i] long; a page that does not shrink is kept raw. */
int64_t reference_pack(const char *pages, int64_t n, int page, char *packed, int64_t capacity, int64_t *offsets,
                       int32_t *lengths)
{
    int64_t end = 0;
    for (int64_t i = 0; i < n; i++) {
        if (capacity - end < page)
            return -1;
        int length = LZ4_compress_default(pages + i * page, packed + end, page, page - 1);
        if (length <= 0) {
            memcpy(packed + end, pages + i * page, page);
            length = page;
        }
        offsets[i] = end;
        lengths[i] = length;
        end += length;
    }
    return end;
}

/* LZ4_decompress_safe over n packed blobs, in the order given, into consecutive pages of out; 0, or -1. */
int reference_decompress(const char *packed, const int64_t *offsets, const int32_t *lengths, int64_t n, char *out,
                         int page)
{
    for (int64_t i = 0; i < n; i++) {
        char *to = out + i * page;
        if (lengths[i] == page)
            memcpy(to, packed + offsets[i], page);
        else if (LZ4_decompress_safe(packed + offsets[i], to, lengths[i], page) != page)
            return -1;
    }
    return 0;
}

/* LZ4_decompress_safe of n packed blobs into one scratch page, each compared with its page; how many differ, or -1. */
int64_t reference_compare(const char *packed, const int64_t *offsets, const int32_t *lengths, int64_t n,
                          const char *pages, char *scratch, int page)
{
    int64_t modified = 0;
    for (int64_t i = 0; i < n; i++) {
        const char *blob = packed + offsets[i];
        if (lengths[i] != page) {
            if (LZ4_decompress_safe(blob, scratch, lengths[i], page) != page)
                return -1;
            blob = scratch;
        }
        modified += memcmp(blob, pages + i * page, page) != 0;
    }
    return modified;
}

/* pwrite of nbytes from the start of the file, a chunk at a time from one aligned buffer; 0, or -errno. */
int reference_write(int fd, const char *buffer, int64_t chunk, int64_t nbytes)
{
    for (int64_t at = 0; at < nbytes; at += chunk) {
        ssize_t done = pwrite(fd, buffer, chunk, at);
        if (done != chunk)
            return done < 0 ? -errno : -EIO;
    }
    return 0;
}

/* Write one byte in each page, as the kernel's first touch is paid; returns a value so that nothing is left out. */
int reference_touch(volatile char *memory, int64_t nbytes, int page)
{
    for (int64_t at = 0; at < nbytes; at += page)
        memory[at] = 1;
    return memory[0];
}
