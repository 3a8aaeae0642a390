/* Allocation helpers and arenas: see mem.h. */
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

__attribute__((noreturn)) static void out_of_memory(void)
{
    static const char text[] = "arriero: out of memory\n";
    fwrite(text, 1, sizeof text - 1, stderr);
    abort();
}

void *mem_calloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p)
        out_of_memory();
    return p;
}

void *mem_realloc(void *p, size_t n, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(n, size, &total))
        out_of_memory();
    void *q = realloc(p, total ? total : 1);
    if (!q)
        out_of_memory();
    return q;
}

char *mem_strndup(const char *s, size_t n)
{
    char *p = mem_calloc(n + 1, 1);
    if (n)
        memcpy(p, s, n);
    return p;
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

char *mem_printf(const char *fmt, ...)
{
    char *p = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&p, fmt, ap);
    va_end(ap);
    if (n < 0)
        out_of_memory();
    return p;
}

void *mem_try_array(size_t n, size_t size)
{
    return calloc(n ? n : 1, size ? size : 1);
}

struct arena_block {
    struct arena_block *next;
    size_t used, cap;
    _Alignas(16) unsigned char data[];
};

void *arena_alloc(struct arena *a, size_t n)
{
    size_t need, total;
    if (__builtin_add_overflow(n ? n : 1, 15u, &need))
        return NULL;
    need &= ~(size_t)15;
    if (__builtin_add_overflow(a->used_bytes, need, &total) || (a->cap_bytes && total > a->cap_bytes))
        return NULL;
    struct arena_block *b = a->head;
    if (!b || b->cap - b->used < need) {
        size_t cap = b ? b->cap * 2 : 4096;
        if (cap > 1 << 20)
            cap = 1 << 20;
        if (cap < need)
            cap = need;
        size_t block_bytes;
        if (__builtin_add_overflow(sizeof *b, cap, &block_bytes))
            return NULL;
        b = calloc(1, block_bytes);
        if (!b)
            return NULL;
        b->cap = cap;
        b->next = a->head;
        a->head = b;
    }
    void *p = b->data + b->used;
    b->used += need;
    a->used_bytes = total;
    return p;
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
    size_t total;
    return __builtin_mul_overflow(n, size, &total) ? NULL : arena_alloc(a, total);
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    char *p = n == SIZE_MAX ? NULL : arena_alloc(a, n + 1);
    if (p && n)
        memcpy(p, s, n);
    return p;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
    if (p) {
        va_start(ap, fmt);
        vsnprintf(p, (size_t)n + 1, fmt, ap);
        va_end(ap);
    }
    return p;
}

void arena_release(struct arena *a)
{
    while (a->head) {
        struct arena_block *next = a->head->next;
        free(a->head);
        a->head = next;
    }
    a->used_bytes = 0;
}
