/* Times system calls in a tight loop: ns a call. */

#define _GNU_SOURCE
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

double time_pread(int fd, char *buffer, size_t bytes, int times) {
    double began = now();
    for (int i = 0; i < times; i++)
        if (pread(fd, buffer, bytes, 0) != (ssize_t)bytes) return -1;
    return (now() - began) / times;
}

double time_getppid(int times) {
    double began = now();
    for (int i = 0; i < times; i++) syscall(SYS_getppid);
    return (now() - began) / times;
}
