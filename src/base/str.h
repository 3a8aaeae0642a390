/* Borrowed byte slices and small text helpers. Layer base; any thread; no state.
 * A struct str is never assumed to be NUL-terminated. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct str {
    const char *p; /* borrowed; may be NULL when n is 0 */
    size_t n;
};

#define STR(lit)   ((struct str){"" lit, sizeof(lit) - 1})
#define STR_ARG(s) (int)(s).n, (s).p /* for "%.*s" */

struct str str_from(const char *cstr); /* NULL gives the empty slice */
bool str_eq(struct str a, struct str b);
bool str_eq_c(struct str a, const char *b);
bool str_ieq(struct str a, struct str b); /* ASCII case-insensitive */
bool str_starts(struct str s, const char *prefix);
bool str_ends(struct str s, const char *suffix);
struct str str_trim(struct str s); /* without leading and trailing ASCII white space */
/* Cuts s at the first c: returns what is before it and leaves what is after it in *s (empty at the end). */
struct str str_cut(struct str *s, char c);
/* Index of the first occurrence, or -1. */
ptrdiff_t str_find(struct str s, struct str needle);

/* Whole-slice decimal parse; false on anything else, on overflow, or on empty. ret untouched on failure. */
bool str_u64(struct str s, uint64_t *ret_value);
bool str_i64(struct str s, int64_t *ret_value);
bool str_double(struct str s, double *ret_value);
/* A number of tokens: "4096", "4k", "128K", "1M" (1024-based, as contexts are told). */
bool str_tokens(struct str s, uint64_t *ret_tokens);
/* Bytes with an optional unit: "1536MiB", "24GiB", "8G" (1024-based), "600 MB" (1000-based), plain bytes. */
bool str_bytes(struct str s, uint64_t *ret_bytes);
/* Durations with a unit: "300" (seconds), "500ms", "5m", "2h". */
bool str_duration_ms(struct str s, uint64_t *ret_ms);

/* Edit distance (Damerau: adjacent swaps count one), ASCII case-insensitive, slices over 128 bytes are cut.
 */
unsigned str_distance(struct str a, struct str b);

/* "1.4 GiB", "512 MiB", "17 B" into out (at least 24 bytes); returns out. */
char *str_human_bytes(uint64_t bytes, char *out, size_t cap);
/* 64-bit hash of the bytes (FNV-1a folded with a final mix): tables and caches, not for hostile keys. */
uint64_t str_hash(struct str s, uint64_t seed);

#endif
