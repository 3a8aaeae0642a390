/* Machines that are not here, for what-if plans: a table of cards, hosts and whole machines (profiles.def).
 * Layer hw; pure; any thread; everything is static. */
#ifndef HW_PROFILES_PROFILES_H
#define HW_PROFILES_PROFILES_H

#include "base/err.h"
#include "base/str.h"

#include <stddef.h>
#include <stdint.h>

enum hw_profile_kind { HW_PROFILE_CARD, HW_PROFILE_UNIFIED, HW_PROFILE_HOST, HW_PROFILE_MACHINE };
enum hw_profile_class { HW_CLASS_DESKTOP, HW_CLASS_LAPTOP, HW_CLASS_SERVER };

struct hw_profile {
    enum hw_profile_kind kind;
    const char *name, *title;
    const char *backend; /* stem of llama.cpp's device names; NULL without a GPU */
    const char *parts;   /* a machine's: profiles with their numbers */
    enum hw_profile_class class;
    uint32_t mib;      /* of the device; of a host or a unified memory: RAM */
    uint32_t free_mib; /* of the device, usually */
    double gbps, tflops, watts, link_gbps;
    unsigned cores;
};

/* All of them, in the order of the table. */
const struct hw_profile *hw_profiles(size_t *ret_n);
/* By name, ASCII case ignored; the maker's prefix (rtx, gtx, rx, arc-) may be left out. NULL if there is
 * none. */
const struct hw_profile *hw_profile_find(struct str name);
/* "4xrtx3090" → 4 and the profile. RC_INVALID with the nearest name as hint. */
enum rc hw_profile_parse(struct str word, const struct hw_profile **ret_profile, uint32_t *ret_count,
                         struct err *err);

#endif
