/* Limits on the power of GPUs, where the configuration asks for them and allows it. Layer daemon; the main
 * thread at start and end, nothing in between: the devices' handle (hw) holds the limits while it is open.
 *
 * What the limits were before is kept in a file of the state directory from when they are set until they are
 * set back, so that a daemon that was killed is followed by one that sets back the right ones, whether it
 * limits anything itself or not. */
#include "daemon/daemon_priv.h"

#include "base/clock.h"
#include "base/log.h"
#include "os/file.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX_BYTES 65536
#define MOST_MW        100000000u

struct power {
    struct hw_power_wish wishes[2 * HW_MAX_DEVICES];
    char *names[2 * HW_MAX_DEVICES]; /* of the wishes; owned */
    bool asked[2 * HW_MAX_DEVICES];  /* by the configuration; else left over from a daemon that was killed */
    size_t n;
};

static void file_of(const struct daemon *d, char *out, size_t cap)
{
    snprintf(out, cap, "%s/power-limits.json", d->state_dir);
}

static void add_wish(struct power *p, struct str device, unsigned limit_mw, unsigned restore_mw, bool asked)
{
    if (p->n == TABLE_COUNT(p->wishes))
        return;
    p->names[p->n] = mem_printf("%.*s", STR_ARG(device));
    p->wishes[p->n] = (struct hw_power_wish){p->names[p->n], limit_mw, restore_mw};
    p->asked[p->n++] = asked;
}

/* What a daemon that was killed has left: {"UUID": milliwatts before}. */
static void read_left_over(struct daemon *d, struct power *p)
{
    char path[4300];
    struct buf text = {0};
    yyjson_doc *doc = NULL;
    struct err err;
    file_of(d, path, sizeof path);
    enum rc rc = file_read(path, FILE_MAX_BYTES, &text, &err);
    if (rc == RC_OK)
        rc = json_parse(buf_str(&text), path, &doc, &err);
    if (rc != RC_OK && rc != RC_NOT_FOUND)
        log_err(LOG_WARN, "what the power limits were before is not known", &err);
    size_t i, n;
    yyjson_val *key, *v;
    yyjson_obj_foreach(yyjson_doc_get_root(doc), i, n, key, v)
    {
        uint64_t mw = yyjson_get_uint(v);
        if (mw > 0 && mw <= MOST_MW)
            add_wish(p, (struct str){yyjson_get_str(key), yyjson_get_len(key)}, (unsigned)mw, (unsigned)mw,
                     false);
    }
    yyjson_doc_free(doc);
    buf_release(&text);
}

void power_wishes(struct daemon *d, struct hw_options *ret)
{
    const struct config *c = d->config;
    struct power *p = mem_new(struct power);
    if (c->power_limit_w.n && !c->power_allow)
        log_warn("power.limit_w is not applied: add power.allow: true");
    for (size_t i = 0; c->power_allow && i < c->power_limit_w.n; i++) {
        struct str device;
        unsigned watts;
        if (config_power(c->power_limit_w.items[i], &device, &watts, NULL) == RC_OK)
            add_wish(p, device, watts * 1000, 0, true);
    }
    if (d->lock_fd >= 0) /* else another daemon's file might be read */
        read_left_over(d, p);
    d->power = p;
    ret->power = p->wishes;
    ret->n_power = p->n;
}

static bool is_named(const struct hw_device *g, const char *name)
{
    return strcmp(name, g->name) == 0 || ((g->valid & HW_UUID) && strcmp(name, g->uuid) == 0);
}

static void tell(struct daemon *d, const struct hw_device *g, const char *kind, const char *text)
{
    struct plan_reason r = {.code = kind};
    snprintf(r.text, sizeof r.text, "%s", text);
    const struct pool_decision event = {.wall_ms = clock_wall_ms(),
                                        .kind = kind,
                                        .model = g->name,
                                        .instance = "",
                                        .reasons = &r,
                                        .n_reasons = 1};
    events_decision(d, &event);
}

static void tell_device(struct daemon *d, const struct hw_device *g)
{
    char text[200];
    if (g->power_note[0])
        tell(d, g, "power_refused", g->power_note);
    if (!g->power_restore_mw || g->power_restore_mw == g->power_limit_mw)
        return; /* set back to what it was before a daemon that was killed */
    if (g->valid & HW_POWER_LIMIT)
        snprintf(text, sizeof text,
                 "its power is limited to %u W; at the end it gets back the %u W of before",
                 g->power_limit_mw / 1000, g->power_restore_mw / 1000);
    else
        snprintf(text, sizeof text, "its power is limited; at the end it gets back the %u W of before",
                 g->power_restore_mw / 1000);
    tell(d, g, "power_limit", text);
}

/* Before this nothing of what was set is known to a next daemon: milliseconds, once a start. */
static void remember(struct daemon *d, const struct hw_inventory *inv)
{
    char path[4300];
    struct buf text = {0};
    struct err err;
    size_t n = 0;
    file_of(d, path, sizeof path);
    buf_puts(&text, "{");
    for (size_t i = 0; i < inv->n_devices; i++) {
        const struct hw_device *g = &inv->devices[i];
        if (!g->power_restore_mw || g->power_restore_mw == g->power_limit_mw)
            continue;
        buf_puts(&text, n++ ? "," : "");
        buf_put_json(&text, str_from(g->valid & HW_UUID ? g->uuid : g->name));
        buf_printf(&text, ":%u", g->power_restore_mw);
    }
    buf_puts(&text, "}\n");
    if (n == 0)
        (void)unlink(path);
    else if (file_write_atomic(path, buf_str(&text), 0600, &err) != RC_OK)
        log_err(LOG_WARN, "the power limits of before could not be noted", &err);
    buf_release(&text);
}

void power_begun(struct daemon *d)
{
    const struct hw_inventory *inv = sampler_latest(d->sampler);
    if (d->power->n == 0)
        return;
    for (size_t i = 0; i < inv->n_devices; i++)
        tell_device(d, &inv->devices[i]);
    for (size_t k = 0; k < d->power->n; k++) {
        bool found = false;
        for (size_t i = 0; i < inv->n_devices; i++)
            found |= is_named(&inv->devices[i], d->power->names[k]);
        if (!found && d->power->asked[k])
            log_warn("power.limit_w names %s, and there is no such GPU: see arriero gpus",
                     d->power->names[k]);
    }
    if (d->lock_fd >= 0)
        remember(d, inv);
}

void power_warnings(struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *list)
{
    const struct hw_inventory *inv = sampler_latest(d->sampler);
    for (size_t i = 0; i < inv->n_devices; i++)
        if (inv->devices[i].power_note[0])
            yyjson_mut_arr_add_strcpy(doc, list, inv->devices[i].power_note);
}

void power_ended(struct daemon *d, bool restored)
{
    char path[4300];
    if (!d->power)
        return;
    file_of(d, path, sizeof path);
    if (restored && d->lock_fd >= 0 && d->power->n)
        (void)unlink(path);
    for (size_t i = 0; i < d->power->n; i++)
        free(d->power->names[i]);
    free(take_ptr(d->power));
}
