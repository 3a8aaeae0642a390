/* A waiting line that is fair over keys. Layer pool; pure: no clock, no loop; one owner.
 *
 * Who waits embeds a struct line_spot. Spots of one key in one band are a flow, first come first served;
 * bands go in their order; the flows of a band take turns: deficit round robin in which a flow that was
 * granted `cost` sits out cost - 1 rounds, so that every operation is O(1) however costs differ.
 *
 * Starvation: a flow whose first spot has been that for max_ms, or for max_grants grants to others, goes
 * before all that is not overdue as well, whatever its band. The flows that are overdue take turns by age, so
 * a spot that is first of its key is granted after at most max_grants + (keys that wait) grants, and a key
 * that floods the line delays another by one grant a turn.
 *
 * A flow that leaves the line in debt is remembered until its debt is paid or the line is empty: asking one
 * at a time buys no larger share. Only flows are allocated, when a key comes to wait; spots never are. */
#ifndef POOL_LINE_H
#define POOL_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum line_band { LINE_HIGH, LINE_NORMAL, LINE_LOW, LINE_BANDS };
const char *line_band_word(enum line_band b); /* "high", "normal", "low" */

#define LINE_COST_MAX 63u

struct line_flow;

struct line_spot {
    struct line_spot *prev, *next;   /* in its flow */
    struct line_spot *older, *newer; /* in the line, by arrival */
    struct line_flow *flow;          /* NULL = in no line */
    uint8_t cost;
};

struct line_bounds {
    uint64_t max_ms;     /* 0 = no such bound */
    uint32_t max_grants; /* 0 = no such bound */
};

struct line;
struct line *line_new(void);
void line_free(struct line *l); /* spots that are still in it are left alone; NULL is fine */
/* At the end of its key's flow. cost: 1 to LINE_COST_MAX, others are brought there. */
void line_add(struct line *l, struct line_spot *s, uint64_t key, enum line_band band, uint32_t cost,
              uint64_t now_ms);
/* Gives up its place. */
void line_remove(struct line *l, struct line_spot *s);
/* Whose turn it is: takes it out of the line; NULL when nobody waits. */
struct line_spot *line_take(struct line *l, const struct line_bounds *bounds, uint64_t now_ms);

size_t line_length(const struct line *l);                      /* 0 for NULL */
size_t line_band_length(const struct line *l, enum line_band); /* 0 for NULL */
struct line_spot *line_oldest(const struct line *l);           /* the first by arrival; then ->newer */
enum line_band line_band_of(const struct line_spot *s);
/* How many are granted before it if nobody comes or goes and all cost the same. O(keys, and what waits before
 * it of its own). */
size_t line_ahead(const struct line *l, const struct line_spot *s);

#endif
