/* Models that are loaded at the start (preload: true). Layer daemon; loop thread.
 *
 * They load in the background, those of higher priority first: each begins when the one before has been
 * placed, waits for memory, or has failed, so that the first have the first choice of room and several may
 * load side by side. A load that failed is tried again after a pause, and given up after PRELOAD_TRIES, or at
 * once if it can never fit. */
#include "daemon/daemon_priv.h"

#include "base/clock.h"
#include "base/log.h"

#include <string.h>

#define PRELOAD_TRIES    5
#define PRELOAD_PAUSE_MS 1000u /* twice as long after each further failure */

enum step { STEP_TODO, STEP_GOING, STEP_OVER };

struct preload_item {
    struct daemon *d;
    char *id;
    enum step step;
    bool placed; /* the next one may begin */
    unsigned tries;
    uint64_t due_ms;
};

struct preload {
    size_t n;
    struct preload_item items[];
};

static bool is_final(enum rc rc)
{
    return rc == RC_NO_FIT || rc == RC_NOT_FOUND || rc == RC_UNSUPPORTED;
}

static void on_done(void *arg, enum rc rc, const struct err *err)
{
    struct preload_item *item = arg;
    item->placed = true;
    item->step = STEP_OVER;
    if (rc == RC_OK || item->d->stopping)
        return;
    if (is_final(rc) || ++item->tries >= PRELOAD_TRIES) {
        log_warn("%s is not loaded at the start: %s", item->id, err->message);
        return;
    }
    item->step = STEP_TODO;
    item->due_ms = clock_mono_ms() + ((uint64_t)PRELOAD_PAUSE_MS << (item->tries - 1));
}

void preload_begin(struct daemon *d)
{
    size_t n = d->set->n_preload;
    struct preload *p = mem_calloc(1, sizeof *p + n * sizeof p->items[0]);
    p->n = n;
    for (size_t i = 0; i < n; i++)
        p->items[i] = (struct preload_item){.d = d, .id = mem_strdup(d->set->preload[i])};
    d->preload = p;
    preload_look(d);
}

void preload_look(struct daemon *d)
{
    struct preload *p = d->preload;
    uint64_t now = clock_mono_ms();
    for (size_t i = 0; p && !d->stopping && i < p->n; i++) {
        struct preload_item *item = &p->items[i];
        if (item->step == STEP_OVER || (item->step == STEP_TODO && now < item->due_ms))
            continue; /* who waits for another try holds nobody up */
        if (item->step == STEP_TODO) {
            item->step = STEP_GOING;
            item->placed = false;
            pool_load(d->pool, str_from(item->id), on_done, item);
        }
        if (!item->placed)
            return;
    }
}

void preload_decision(struct daemon *d, const struct pool_decision *decision)
{
    static const char *const placed[] = {"load", "wait", "refuse", "fail"};
    for (size_t k = 0; k < TABLE_COUNT(placed); k++)
        for (size_t i = 0; d->preload && i < d->preload->n; i++)
            if (strcmp(decision->kind, placed[k]) == 0 &&
                strcmp(decision->model, d->preload->items[i].id) == 0)
                d->preload->items[i].placed = true;
}

void preload_free(struct preload *p)
{
    for (size_t i = 0; p && i < p->n; i++)
        free(p->items[i].id);
    free(p);
}
