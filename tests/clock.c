/* A wall clock that jumps: LD_PRELOAD this. Every reading is up to two hours off, forwards or backwards, around the hour in which
   summer time ended in Europe in 2026. The monotonic clock, which nothing may set, is left alone. */
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t jumped(time_t now) {
    static _Atomic uint32_t reading = 1;
    uint32_t x = (reading += 1) * 2654435761u;
    return 1792890000 + now % 60 + (time_t)(x >> 16) % 14400 - 7200; /* 2026-10-25 01:00 UTC */
}

int clock_gettime(clockid_t id, struct timespec *t) {
    int failed = syscall(SYS_clock_gettime, id, t);
    if (!failed && id == CLOCK_REALTIME) t->tv_sec = jumped(t->tv_sec);
    return failed;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return t ? (*t = now.tv_sec) : now.tv_sec;
}

int gettimeofday(struct timeval *t, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec, t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
