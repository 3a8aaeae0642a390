/* The header table of one message, filled from llhttp's spans. Layer proxy; loop thread only.
 *
 * Everything is kept as offsets into the message's buffer, which may be moved while the head is still
 * arriving. */
#ifndef PROXY_HEAD_H
#define PROXY_HEAD_H

#include "base/str.h"
#include "proxy/put.h"

#define HEAD_MAX_FIELDS 100u

enum head_id {
    HDR_OTHER,
#define HDR(id, name, request, response) HDR_##id,
#include "proxy/header.def"
#undef HDR
    HDR_COUNT
};

struct head_span {
    uint32_t at, n;
};

struct head_field {
    struct head_span name, value; /* value: without white space around it, once head_close ran */
};

enum head_problem { HEAD_FINE, HEAD_TOO_MANY, HEAD_BROKEN };

struct head {
    struct head_span target; /* of a request */
    uint32_t n;
    bool name_done;
    bool named_hops;          /* Connection names fields other than itself that must go too */
    uint8_t seen[HDR_COUNT];  /* how often each known field came, at most 255 */
    uint8_t first[HDR_COUNT]; /* index of its first occurrence, if seen */
    uint8_t id[HEAD_MAX_FIELDS];
    struct head_field f[HEAD_MAX_FIELDS];
};

void head_reset(struct head *h);
/* Feed llhttp's spans; base is where the buffer starts now. */
enum head_problem head_target(struct head *h, const char *base, const char *at, size_t n);
enum head_problem head_name(struct head *h, const char *base, const char *at, size_t n);
void head_name_end(struct head *h);
enum head_problem head_value(struct head *h, const char *base, const char *at, size_t n);
/* Once, when the head is complete: trims values, recognises names, notes what Connection names. */
void head_close(struct head *h, const char *base);

static inline struct str head_str(const char *base, struct head_span s)
{
    return (struct str){base + s.at, s.n};
}
/* Value of the first such field; empty if there is none. */
static inline struct str head_get(const struct head *h, const char *base, enum head_id id)
{
    return h->seen[id] ? head_str(base, h->f[h->first[id]].value) : (struct str){"", 0};
}
struct str head_find(const struct head *h, const char *base, const char *lower_name);
/* Whether a comma-separated list holds the token, whatever its case. */
bool head_has_token(struct str list, const char *token);

enum head_way { HEAD_TO_UPSTREAM, HEAD_TO_CLIENT };
/* Whether field i may be copied onwards. */
bool head_passes(const struct head *h, const char *base, uint32_t i, enum head_way way);
/* Writes all fields that may be copied onwards, but for those of drop[id] (NULL = none). base is the whole
 * message: its head is followed by the empty line. */
void head_copy(const struct head *h, const char *base, enum head_way way, const bool *drop, struct put *w);

#endif
