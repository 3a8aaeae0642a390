/* Allocation helpers. Layer base; any thread. Small allocations abort on failure (they are bugs or a dead
 * machine); allocations sized by input go through mem_try_array and return errors. */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

__attribute__((returns_nonnull, warn_unused_result)) void *mem_calloc(size_t n, size_t size);
__attribute__((returns_nonnull, warn_unused_result)) void *mem_realloc(void *p, size_t n, size_t size);
__attribute__((returns_nonnull, warn_unused_result)) char *mem_strdup(const char *s);
__attribute__((returns_nonnull, warn_unused_result)) char *mem_strndup(const char *s, size_t n);
__attribute__((returns_nonnull, warn_unused_result, format(printf, 1, 2))) char *mem_printf(const char *fmt,
                                                                                            ...);
/* Zeroed array of n × size, or NULL on overflow or when memory is short. */
__attribute__((warn_unused_result)) void *mem_try_array(size_t n, size_t size);

#define mem_new(type) ((type *)mem_calloc(1, sizeof(type)))

/* auto_free char *p = NULL; … return take_ptr(p); */
static inline void mem_free_ref(void *pp)
{
    free(*(void **)pp);
}
#define auto_free __attribute__((cleanup(mem_free_ref)))
#define take_ptr(p)                                                                                          \
    ({                                                                                                       \
        __typeof__(p) taken_ = (p);                                                                          \
        (p) = NULL;                                                                                          \
        taken_;                                                                                              \
    })

#define TABLE_COUNT(a)                  (sizeof(a) / sizeof *(a))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define MIB                             (1024ull * 1024ull)

/* An arena: bump allocation for one parse, one plan, one request. Freed as a whole; never shared by threads.
 */
struct arena_block;
struct arena {
    struct arena_block *head;
    size_t used_bytes; /* handed out in total */
    size_t cap_bytes;  /* limit on used_bytes; 0 = no limit */
};

/* Zeroed, 16-aligned memory; NULL when the cap would be passed or memory is short. */
__attribute__((warn_unused_result)) void *arena_alloc(struct arena *a, size_t n);
/* n × size with overflow check. */
__attribute__((warn_unused_result)) void *arena_array(struct arena *a, size_t n, size_t size);
/* NUL-terminated copy. */
__attribute__((warn_unused_result)) char *arena_strndup(struct arena *a, const char *s, size_t n);
__attribute__((warn_unused_result, format(printf, 2, 3))) char *arena_printf(struct arena *a, const char *fmt,
                                                                             ...);
void arena_release(struct arena *a); /* frees everything; the arena can be used again */

#endif
