#include "golden.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int by_id(const void *a, const void *b)
{
    return strcmp(((const struct golden *)a)->id, ((const struct golden *)b)->id);
}

static void parse_mark(struct goldens *g, const char *line)
{
    struct golden_shape s;
    if (sscanf(line, "#shape %63s %" SCNx64, s.name, &s.hash) == 2) {
        g->shapes = mem_realloc(g->shapes, g->n_shapes + 1, sizeof s);
        g->shapes[g->n_shapes++] = s;
    }
    (void)!sscanf(line, "#isa %u", &g->isa);
}

static bool parse_device(struct golden *one, const char *word)
{
    struct golden_device *d = &one->devices[one->n_devices];
    int n = sscanf(word, "%15s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, d->name, &d->bytes[PART_MODEL],
                   &d->bytes[PART_CONTEXT], &d->bytes[PART_COMPUTE], &one->repack_bytes);
    one->n_devices++;
    return n >= 4;
}

static bool parse_line(struct goldens *g, char *line)
{
    struct golden one = {0};
    char *word = strsep(&line, "\t");
    snprintf(one.id, sizeof one.id, "%s", word);
    word = strsep(&line, "\t");
    if (!word || sscanf(word, "%" SCNx32, &one.key) != 1)
        return false;
    while ((word = strsep(&line, "\t"))) {
        if (!strncmp(word, "refused: ", 9))
            snprintf(one.refused, sizeof one.refused, "%s", word + 9);
        else if (one.n_devices == PLAN_MAX_DEVICES || !parse_device(&one, word))
            return false;
    }
    if (!one.n_devices && !one.refused[0])
        return false;
    g->all = mem_realloc(g->all, g->n + 1, sizeof one);
    g->all[g->n++] = one;
    return true;
}

enum rc goldens_read(const char *path, struct goldens *ret, struct err *err)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return err_sys(err, RC_IO, "%s cannot be read", path);
    struct goldens g = {0};
    char *line = NULL;
    size_t cap = 0;
    unsigned number = 0;
    enum rc rc = RC_OK;
    while (!rc && getline(&line, &cap, f) > 0) {
        line[strcspn(line, "\n")] = 0;
        number++;
        if (*line == '#')
            parse_mark(&g, line);
        else if (*line && !parse_line(&g, line))
            rc = err_set(err, RC_INVALID, "%s: line %u makes no sense", path, number);
    }
    free(line);
    fclose(f);
    if (rc) {
        goldens_release(&g);
        return rc;
    }
    if (g.n)
        qsort(g.all, g.n, sizeof *g.all, by_id);
    *ret = g;
    return RC_OK;
}

void goldens_release(struct goldens *g)
{
    free(g->all);
    free(g->shapes);
    *g = (struct goldens){0};
}

const struct golden *goldens_find(const struct goldens *g, const char *id, uint32_t key_asked)
{
    struct golden key;
    snprintf(key.id, sizeof key.id, "%s", id);
    const struct golden *found = g->n ? bsearch(&key, g->all, g->n, sizeof key, by_id) : NULL;
    return found && found->key == key_asked ? found : NULL;
}

bool goldens_know(const struct goldens *g, const char *shape, uint64_t hash)
{
    for (size_t i = 0; i < g->n_shapes; i++)
        if (!strcmp(g->shapes[i].name, shape))
            return g->shapes[i].hash == hash;
    return false;
}
