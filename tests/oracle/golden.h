/* The oracle's answers, as recorded (goldens.tsv) or as asked a moment ago (record.py). Tests only.
 *
 * Text, one line a case: its id, a tab, the key of what was asked (hexadecimal), then a tab and "NAME MODEL
 * CONTEXT COMPUTE" in bytes for each device, the host last with a fifth number: the part of its model bytes
 * that is weights packed again; or "refused: REASON". Lines that begin with
 * '#' tell what was asked: "#isa BITS" (enum plan_isa of the machine), "#shape NAME HASH" (of the file's
 * content). */
#ifndef ORACLE_GOLDEN_H
#define ORACLE_GOLDEN_H

#include "base/err.h"
#include "base/str.h"
#include "plan/plan.h"

enum { PART_MODEL, PART_CONTEXT, PART_COMPUTE, PARTS };

struct golden_device {
    char name[16];
    uint64_t bytes[PARTS];
};

struct golden {
    char id[96];
    uint32_t key;
    struct golden_device devices[PLAN_MAX_DEVICES];
    size_t n_devices; /* 0: refused */
    uint64_t repack_bytes;
    char refused[160]; /* why, empty if it was not */
};

struct golden_shape {
    char name[64];
    uint64_t hash;
};

struct goldens {
    struct golden *all; /* sorted by id */
    size_t n;
    struct golden_shape *shapes;
    size_t n_shapes;
    unsigned isa;
};

enum rc goldens_read(const char *path, struct goldens *ret, struct err *err);
void goldens_release(struct goldens *g);
/* NULL when this was not asked, or other arguments were. */
const struct golden *goldens_find(const struct goldens *g, const char *id, uint32_t key);
/* False when the recorded file of this shape had another content (or there was none). */
bool goldens_know(const struct goldens *g, const char *shape, uint64_t hash);

#endif
