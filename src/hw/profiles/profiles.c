/* See profiles.h. What is usually free is the driver's total less what a screen and its programs take; of a
 * memory that both sides share, GPUs get three quarters. Layer hw; pure. */
#include "hw/profiles/profiles.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define TAKEN_DESKTOP 600
#define TAKEN_LAPTOP  400
#define TAKEN_SERVER  16

static const struct hw_profile table[] = {
#define CARD(name_, title_, backend_, class_, mib_, gbps_, tflops_, watts_, link_)                           \
    {.kind = HW_PROFILE_CARD,                                                                                \
     .name = name_,                                                                                          \
     .title = title_,                                                                                        \
     .backend = backend_,                                                                                    \
     .class = HW_CLASS_##class_,                                                                             \
     .mib = mib_,                                                                                            \
     .free_mib = mib_ - TAKEN_##class_,                                                                      \
     .gbps = gbps_,                                                                                          \
     .tflops = tflops_,                                                                                      \
     .watts = watts_,                                                                                        \
     .link_gbps = link_},
#define UNIFIED(name_, title_, backend_, mib_, gbps_, tflops_, watts_, cores_)                               \
    {.kind = HW_PROFILE_UNIFIED,                                                                             \
     .name = name_,                                                                                          \
     .title = title_,                                                                                        \
     .backend = backend_,                                                                                    \
     .mib = mib_,                                                                                            \
     .free_mib = mib_ / 4 * 3,                                                                               \
     .gbps = gbps_,                                                                                          \
     .tflops = tflops_,                                                                                      \
     .watts = watts_,                                                                                        \
     .link_gbps = gbps_,                                                                                     \
     .cores = cores_},
#define HOST(name_, title_, cores_, mib_, gbps_)                                                             \
    {.kind = HW_PROFILE_HOST, .name = name_, .title = title_, .cores = cores_, .mib = mib_, .gbps = gbps_},
#define MACHINE(name_, title_, parts_)                                                                       \
    {.kind = HW_PROFILE_MACHINE, .name = name_, .title = title_, .parts = parts_},
#include "hw/profiles/profiles.def"
};

const struct hw_profile *hw_profiles(size_t *ret_n)
{
    *ret_n = TABLE_COUNT(table);
    return table;
}

const struct hw_profile *hw_profile_find(struct str name)
{
    static const char *const prefixes[] = {"", "rtx", "gtx", "rx", "arc-"};
    char full[64];
    for (size_t p = 0; p < TABLE_COUNT(prefixes); p++) {
        int n = snprintf(full, sizeof full, "%s%.*s", prefixes[p], STR_ARG(name));
        if (n < 0 || (size_t)n >= sizeof full)
            return NULL;
        for (size_t i = 0; i < TABLE_COUNT(table); i++)
            if (str_ieq(str_from(full), str_from(table[i].name)))
                return &table[i];
    }
    return NULL;
}

/* What people leave out: "rtx", "arc-". */
static struct str from_digit(const char *name)
{
    size_t at = strcspn(name, "0123456789");
    return str_from(name[at] ? name + at : name);
}

static const char *nearest(struct str name)
{
    const char *best = table[0].name;
    unsigned least = ~0u;
    for (size_t i = 0; i < TABLE_COUNT(table); i++) {
        unsigned far = str_distance(name, str_from(table[i].name)),
                 bare = str_distance(name, from_digit(table[i].name));
        far = bare < far ? bare : far;
        if (far >= least)
            continue;
        least = far;
        best = table[i].name;
    }
    return best;
}

/* The number before an "x", as in 2xrtx3090; a name may itself begin with digits. */
static bool count_of(struct str *word, uint32_t *ret_count)
{
    size_t digits = 0;
    uint64_t n = 1;
    while (digits < word->n && word->p[digits] >= '0' && word->p[digits] <= '9')
        digits++;
    if (digits == 0 || digits == word->n || (word->p[digits] != 'x' && word->p[digits] != 'X')) {
        *ret_count = 1;
        return true;
    }
    if (!str_u64((struct str){word->p, digits}, &n) || n == 0 || n > 64)
        return false;
    *word = (struct str){word->p + digits + 1, word->n - digits - 1};
    *ret_count = (uint32_t)n;
    return true;
}

enum rc hw_profile_parse(struct str word, const struct hw_profile **ret_profile, uint32_t *ret_count,
                         struct err *err)
{
    struct str name = str_trim(word);
    uint32_t count = 1;
    bool whole = hw_profile_find(name) != NULL; /* 7900xtx is no 7900 cards */
    if (!whole && !count_of(&name, &count))
        return err_set(err, RC_INVALID, "\"%.*s\": the number of cards is out of range", STR_ARG(word));
    const struct hw_profile *p = hw_profile_find(name);
    if (!p) {
        enum rc rc = err_set(err, RC_INVALID, "there is no hardware profile \"%.*s\"", STR_ARG(name));
        err_hint(err, "did you mean %s? All profiles: arriero gpus --profiles", nearest(name));
        return rc;
    }
    if (count > 1 && p->kind != HW_PROFILE_CARD)
        return err_set(err, RC_INVALID, "%s is a whole machine: it cannot be there %u times", p->name, count);
    *ret_profile = p;
    *ret_count = count;
    return RC_OK;
}
