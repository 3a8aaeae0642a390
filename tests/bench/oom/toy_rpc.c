/* Preloaded into ggml-rpc-server: a toy GPU. The file named by TOY_RPC_SIZE holds two numbers, read anew each
 * time, so that a tenant can come and go: the bytes that the worker tells (it asks sysconf for the pages of
 * memory), and the bytes of buffers that it can have, past which an allocation fails as cudaMalloc's would.
 * The worker's buffers are its aligned allocations; what it needs beside them for messages and scratch is no
 * device memory and not counted, but bounded by RLIMIT_AS, which the harness sets. Tests only; the worker
 * allocates buffers from one thread. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LEAST 65536 /* smaller ones are no device buffers */

static struct {
    void *p;
    size_t n;
} live[4096];

static unsigned long long number(int which, unsigned long long otherwise)
{
    const char *path = getenv("TOY_RPC_SIZE");
    FILE *f = path ? fopen(path, "re") : NULL;
    unsigned long long v[2] = {otherwise, otherwise};
    if (!f)
        return otherwise;
    if (fscanf(f, "%llu %llu", &v[0], &v[1]) != 2)
        v[0] = v[1] = 0;
    fclose(f);
    return v[which];
}

long sysconf(int name);
long sysconf(int name)
{
    long (*real)(int);
    *(void **)&real = dlsym(RTLD_NEXT, "sysconf");
    if (name != _SC_PHYS_PAGES && name != _SC_AVPHYS_PAGES)
        return real(name);
    unsigned long long page = (unsigned long long)real(_SC_PAGESIZE);
    return (long)(number(0, (unsigned long long)real(name) * page) / page);
}

int posix_memalign(void **ret, size_t alignment, size_t n);
int posix_memalign(void **ret, size_t alignment, size_t n)
{
    int (*real)(void **, size_t, size_t);
    *(void **)&real = dlsym(RTLD_NEXT, "posix_memalign");
    size_t sum = 0, slot = sizeof live / sizeof *live;
    for (size_t i = sizeof live / sizeof *live; i-- > 0;) {
        sum += live[i].n;
        if (!live[i].p)
            slot = i;
    }
    if (n >= LEAST && (slot == sizeof live / sizeof *live || sum + n > number(1, (size_t)-1)))
        return ENOMEM;
    int code = real(ret, alignment, n);
    if (code == 0 && n >= LEAST) {
        live[slot].p = *ret;
        live[slot].n = n;
    }
    return code;
}

void free(void *p);
void free(void *p)
{
    static void (*real)(void *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "free");
    for (size_t i = 0; p && i < sizeof live / sizeof *live; i++)
        if (live[i].p == p) {
            live[i].p = NULL;
            live[i].n = 0;
        }
    real(p);
}
