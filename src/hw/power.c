/* Limits on a device's power: the rules that are the same for every vendor. Layer hw; the thread that opens
 * the handle.
 *
 * A limit is set only where somebody wished it for that device, inside the range that the device tells, and
 * what it was before is kept for the closing. Whatever goes wrong is a note of the device, never an error:
 * models run without it. */
#include "hw/hw_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The first wish for the device counts; what it is to be set back to may stand in another one. */
static bool wish_for(const struct hw_roots *roots, const struct hw_device *d, struct hw_power_wish *ret)
{
    bool found = false;
    for (size_t i = 0; i < roots->n_power; i++) {
        const struct hw_power_wish *w = &roots->power[i];
        if (strcmp(w->device, d->name) != 0 && (!(d->valid & HW_UUID) || strcmp(w->device, d->uuid) != 0))
            continue;
        if (!found)
            *ret = *w;
        if (w->restore_mw)
            ret->restore_mw = w->restore_mw;
        found = true;
    }
    return found;
}

__attribute__((format(printf, 2, 3))) static void note(struct hw_device *d, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(d->power_note, sizeof(d->power_note), fmt, ap);
    va_end(ap);
}

void hw_power_apply(const struct hw_roots *roots, const struct hw_power_driver *driver, void *arg,
                    struct hw_device *d)
{
    struct hw_power_wish wish;
    unsigned least = 0, most = 0, before = 0;
    char words[64];
    if (!wish_for(roots, d, &wish))
        return;
    unsigned watts = wish.limit_mw / 1000;
    if (driver->range(arg, &least, &most) == 0 && (wish.limit_mw < least || wish.limit_mw > most)) {
        note(d, "%s allows limits from %u to %u W, not %u: correct power.limit_w", d->name,
             (least + 999) / 1000, most / 1000, watts);
        return;
    }
    int code = driver->get(arg, &before);
    if (code == 0)
        code = driver->set(arg, wish.limit_mw);
    if (code == 0)
        d->power_restore_mw = wish.restore_mw ? wish.restore_mw : before;
    else if (driver->is_denied(code))
        note(
            d,
            "only root may limit the power of %s to %u W: run the daemon as root, or set the limit before it "
            "starts%s%s",
            d->name, watts, driver->tool ? " with " : "", driver->tool ? driver->tool : "");
    else
        note(d, "the power of %s cannot be limited to %u W: %s", d->name, watts,
             driver->words(code, words, sizeof(words)));
}
