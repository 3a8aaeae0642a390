/* Reasons in sentences: see why.h. */
#include "daemon/why.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* ---- words ---- */

static const struct {
    const char *kind, *verb;
    bool ends; /* behind it the model is not loaded */
} kinds[] = {
    {"load", "was placed", false},
    {"ready", "became ready", false},
    {"evict", "was unloaded to make room", true},
    {"unload", "was unloaded", true},
    {"fail", "failed to load", true},
    {"ladder", "is tried again with less", false},
    {"breaker", "is left alone", false},
    {"refuse", "was refused", true},
    {"crash", "crashed", true},
    {"wait", "waits for memory", false},
    {"reset", "is held back no longer", false},
    {"kv_saved", "was written down", false},
    {"kv_restored", "goes on where it was", false},
    {"kv_failed", "lost a conversation", false},
    {"kv_off", "keeps no more conversations", false},
    {"shrink", "gives memory to others", false},
    {"grow", "takes memory back", false},
    {"pressure", "memory pressure", false},
    {"adopt", "was taken over", false},
    {"detach", "was left running", false},
    {"attach", "will end with the daemon", false},
    {"heat", "is sent less at a time", false},
    {"cool", "is sent more at a time again", false},
    {"thermal_warning", "is warm", false},
    {"thermal_critical", "is too hot", false},
    {"thermal_normal", "has cooled", false},
    {"vram_pressure", "fills up", false},
    {"vram_critical", "is nearly full", false},
    {"vram_normal", "has room again", false},
    {"power_limit", "is limited in power", false},
    {"power_refused", "keeps its limit of power", false},
    {"llm_degraded", "cannot play its role", false},
    {"llm_healthy", "plays its role", false},
};

struct str why_verb(struct str kind)
{
    for (size_t i = 0; i < TABLE_COUNT(kinds); i++)
        if (str_eq_c(kind, kinds[i].kind))
            return str_from(kinds[i].verb);
    return kind;
}

static bool is_kind(yyjson_val *d, const char *kind)
{
    return d && str_eq_c(json_str(d, "kind", STR("")), kind);
}

static bool is_end(yyjson_val *d)
{
    for (size_t i = 0; i < TABLE_COUNT(kinds); i++)
        if (kinds[i].ends && is_kind(d, kinds[i].kind))
            return true;
    return false;
}

/* "3 s", "4 min", "2 h", "5 days" */
static void put_span(uint64_t ms, struct buf *out)
{
    static const struct {
        uint64_t ms, upto;
        const char *unit;
    } units[] = {
        {1000, 120, " s"}, {60000, 120, " min"}, {3600000, 48, " h"}, {86400000, UINT64_MAX, " days"}};
    size_t k = 0;
    while (ms / units[k].ms >= units[k].upto)
        k++;
    buf_printf(out, "%llu%s", (unsigned long long)(ms / units[k].ms), units[k].unit);
}

/* As a command would measure it: "850 ms", "4.2 s", "75 s". */
static void put_seconds(double s, struct buf *out)
{
    if (s < 1)
        buf_printf(out, "%.0f ms", s * 1000);
    else if (s < 10)
        buf_printf(out, "%.1f s", s);
    else
        put_span((uint64_t)(s * 1000), out);
}

static uint64_t age_of(yyjson_val *d, int64_t wall_ms)
{
    int64_t at = yyjson_get_sint(yyjson_obj_get(d, "at_ms"));
    return at > 0 && at < wall_ms ? (uint64_t)(wall_ms - at) : 0;
}

static void put_ago(yyjson_val *d, int64_t wall_ms, struct buf *out)
{
    if (age_of(d, wall_ms) < 1000) {
        buf_puts(out, "just now");
        return;
    }
    put_span(age_of(d, wall_ms), out);
    buf_puts(out, " ago");
}

/* ---- reasons ---- */

static struct str bare(struct str text)
{
    while (text.n && (text.p[text.n - 1] == '.' || text.p[text.n - 1] == ' '))
        text.n--;
    return text;
}

static yyjson_val *reason_at(yyjson_val *d, size_t i)
{
    return yyjson_arr_get(yyjson_obj_get(d, "reasons"), i);
}

static struct str first_code(yyjson_val *d)
{
    return json_str(reason_at(d, 0), "code", STR(""));
}

static struct str first_text(yyjson_val *d)
{
    return bare(json_str(reason_at(d, 0), "text", STR("")));
}

/* The model that it was for. */
static struct str other_of(yyjson_val *d)
{
    return json_str(reason_at(d, 0), "model", STR(""));
}

void why_sentence(yyjson_val *d, struct buf *out)
{
    size_t i, n, shown = 0;
    yyjson_val *r;
    buf_put_str(out, json_str(d, "model", json_str(d, "instance", STR("?"))));
    buf_puts(out, " ");
    buf_put_str(out, why_verb(json_str(d, "kind", STR("?"))));
    double seconds = json_double(d, "seconds", 0);
    if (seconds > 0 && seconds < 1e9) {
        buf_puts(out, " after ");
        put_seconds(seconds, out);
    }
    yyjson_arr_foreach(yyjson_obj_get(d, "reasons"), i, n, r)
    {
        struct str text = bare(json_str(r, "text", json_str(r, "code", STR(""))));
        if (!text.n)
            continue;
        buf_puts(out, shown++ ? "; " : ": ");
        buf_put_str(out, text);
    }
    buf_puts(out, ".");
}

/* ---- what the history tells ---- */

struct past {
    yyjson_val *ended;  /* how it came not to be loaded, the latest time */
    yyjson_val *before; /* the same, before it was last ready */
    yyjson_val *ready, *load, *wait;
    unsigned tries;  /* loads that were given up for less, since it was last ready or on the way there */
    unsigned repeat; /* times that it ended like `ended`, one after the other */
};

static struct past past_of(yyjson_val *decisions, bool is_ready)
{
    struct past p = {0};
    size_t i, n;
    unsigned readies = 0;
    bool same = true;
    yyjson_val *d;
    yyjson_arr_foreach(decisions, i, n, d)
    {
        readies += is_kind(d, "ready");
        if (is_kind(d, "ready") && !p.ready)
            p.ready = d;
        if (is_kind(d, "load") && !p.load)
            p.load = d;
        if (is_kind(d, "wait") && !p.wait && !p.load)
            p.wait = d;
        if (is_kind(d, "ladder") && readies <= is_ready)
            p.tries++;
        if (!is_end(d))
            continue;
        same = same && (!p.ended || str_eq(json_str(d, "kind", STR("")), json_str(p.ended, "kind", STR(""))));
        p.repeat += same;
        if (!p.ended)
            p.ended = d;
        if (p.ready && !p.before)
            p.before = d;
    }
    return p;
}

/* "it left 3 min ago to make room for slow-b" */
static void put_end(yyjson_val *d, int64_t wall_ms, struct buf *out)
{
    static const struct {
        const char *kind, *code, *before, *behind;
        bool text;
    } forms[] = {
        {"unload", "asked", "it was unloaded ", ", as was asked for", false},
        {"unload", "ttl", "it was unloaded ", ", ", true},
        {"unload", "keep_alive", "it was unloaded ", ", ", true},
        {"unload", "daemon_stops", "the daemon stopped ", "", false},
        {"unload", NULL, "it was unloaded ", ": ", true},
        {"crash", NULL, "it crashed ", ": ", true},
        {"fail", NULL, "its load failed ", ": ", true},
        {"refuse", NULL, "it was refused ", ": ", true},
    };
    if (is_kind(d, "evict")) {
        struct str other = other_of(d);
        buf_puts(out, "it left ");
        put_ago(d, wall_ms, out);
        buf_puts(out, " to make room for ");
        buf_put_str(out, other.n ? other : STR("another model"));
        return;
    }
    for (size_t i = 0; i < TABLE_COUNT(forms); i++) {
        if (!is_kind(d, forms[i].kind) || (forms[i].code && !str_eq_c(first_code(d), forms[i].code)))
            continue;
        buf_puts(out, forms[i].before);
        put_ago(d, wall_ms, out);
        if (!forms[i].text || first_text(d).n)
            buf_puts(out, forms[i].behind);
        if (forms[i].text)
            buf_put_str(out, first_text(d));
        return;
    }
}

/* " To make room, slow, idle for 3 s, had to leave: it held 45 MiB." */
static void put_displaced(yyjson_val *load, struct buf *out)
{
    size_t i, n, shown = 0;
    yyjson_val *r;
    yyjson_arr_foreach(yyjson_obj_get(load, "reasons"), i, n, r)
    {
        if (!str_eq_c(json_str(r, "code", STR("")), "displaces"))
            continue;
        buf_puts(out, shown++ ? "; " : " To make room, ");
        buf_put_str(out, bare(json_str(r, "text", STR("?"))));
    }
    if (shown)
        buf_puts(out, ".");
}

static void put_tries(const struct past *p, struct buf *out)
{
    if (p->tries)
        buf_printf(out, " %u load%s before ran out of memory and %s tried again with less.", p->tries,
                   p->tries == 1 ? "" : "s", p->tries == 1 ? "was" : "were");
}

static void put_reload(const struct why_now *now, const struct past *p, struct buf *out)
{
    double seconds = json_double(p->ready, "seconds", now->load_seconds);
    if (seconds > 0 && seconds < 1e9) {
        buf_puts(out, "; it would take ");
        put_seconds(seconds, out);
        buf_puts(out, p->ready ? " to load again" : " to load");
    } else {
        buf_puts(out, "; a request loads it");
    }
}

/* ---- situations ---- */

static void unloaded(const struct why_now *now, const struct past *p, int64_t wall_ms, struct buf *out)
{
    buf_puts(out, " is not loaded: ");
    if (p->ended)
        put_end(p->ended, wall_ms, out);
    else
        buf_puts(out, "nobody has asked for it yet");
    if (p->repeat > 1 && !is_kind(p->ended, "evict") && !is_kind(p->ended, "unload"))
        buf_printf(out, " (%u times in a row)", p->repeat);
    put_reload(now, p, out);
    buf_puts(out, ".");
}

static void failed(const struct why_now *now, const struct past *p, int64_t wall_ms, struct buf *out)
{
    buf_puts(out, " is not loaded: ");
    if (p->ended)
        put_end(p->ended, wall_ms, out);
    else
        buf_printf(out, "%s", now->cause[0] ? now->cause : "it failed");
    if (p->repeat > 1)
        buf_printf(out, " (%u times in a row)", p->repeat);
    buf_puts(out, ".");
    put_tries(p, out);
}

static void on_devices(const struct why_now *now, struct buf *out)
{
    if (now->devices[0])
        buf_printf(out, " on %s", now->devices);
}

static void ready(const struct why_now *now, const struct past *p, int64_t wall_ms, struct buf *out)
{
    buf_puts(out, " runs");
    on_devices(now, out);
    buf_puts(out, ", for ");
    put_span(now->since_ms, out);
    if (now->slots)
        buf_printf(out, "; %llu of %llu slots are busy", (unsigned long long)now->busy,
                   (unsigned long long)now->slots);
    if (now->waiting)
        buf_printf(out, ", %llu wait", (unsigned long long)now->waiting);
    if (now->pinned)
        buf_puts(out, "; it is pinned");
    buf_puts(out, ".");
    if (p->load && first_text(p->load).n) {
        buf_puts(out, " ");
        buf_put_str(out, first_text(p->load));
        buf_puts(out, ".");
    }
    put_displaced(p->load, out);
    put_tries(p, out);
    if (p->before) {
        buf_puts(out, " Before that, ");
        put_end(p->before, wall_ms, out);
        buf_puts(out, ".");
    }
}

static void starting(const struct why_now *now, const struct past *p, int64_t wall_ms, struct buf *out)
{
    (void)wall_ms;
    buf_puts(out, " is being loaded");
    on_devices(now, out);
    buf_puts(out, ", for ");
    put_span(now->since_ms, out);
    if (now->progress > 0 && now->progress <= 1)
        buf_printf(out, ", %.0f %% done", now->progress * 100);
    if (now->load_seconds > 0) {
        buf_puts(out, "; about ");
        put_seconds(now->load_seconds, out);
        buf_puts(out, " are expected");
    }
    buf_puts(out, ".");
    put_displaced(p->load, out);
    put_tries(p, out);
}

static void planned(const struct why_now *now, const struct past *p, int64_t wall_ms, struct buf *out)
{
    (void)now;
    if (p->wait) {
        buf_puts(out, " has waited for memory for ");
        put_span(age_of(p->wait, wall_ms), out);
        buf_puts(out, ": ");
        buf_put_str(out, first_text(p->wait));
        buf_puts(out, ".");
    } else if (p->load) {
        buf_puts(out, " is placed, and starts when others have left.");
        put_displaced(p->load, out);
    } else {
        buf_puts(out, " is looked at, to be loaded.");
    }
    put_tries(p, out);
}

static void draining(const struct why_now *now, const struct past *p, int64_t wall_ms, struct buf *out)
{
    (void)wall_ms;
    buf_puts(out, " is on its way out");
    if (p->ended && other_of(p->ended).n) {
        buf_puts(out, ", to make room for ");
        buf_put_str(out, other_of(p->ended));
    } else if (p->ended && first_text(p->ended).n) {
        buf_puts(out, ": ");
        buf_put_str(out, first_text(p->ended));
    }
    if (now->busy)
        buf_printf(out, "; %llu of its requests still run", (unsigned long long)now->busy);
    buf_puts(out, ".");
}

/* Of something that is no model now: a device, a model that is gone. */
static void unknown(yyjson_val *decisions, int64_t wall_ms, struct buf *out)
{
    yyjson_val *d = yyjson_arr_get_first(decisions);
    buf_puts(out, " ");
    buf_put_str(out, d ? why_verb(json_str(d, "kind", STR("?"))) : STR("has no decisions yet"));
    if (d) {
        buf_puts(out, ", ");
        put_ago(d, wall_ms, out);
        if (first_text(d).n) {
            buf_puts(out, ": ");
            buf_put_str(out, first_text(d));
        }
    }
    buf_puts(out, ".");
}

static const struct {
    const char *state, *verb; /* verb: where all are listed; NULL = it is left out there */
    void (*put)(const struct why_now *now, const struct past *p, int64_t wall_ms, struct buf *out);
} situations[] = {
    {"ready", "runs", ready},
    {"starting", "is being loaded", starting},
    {"planned", "waits", planned},
    {"draining", "is on its way out", draining},
    {"failed", "failed to load", failed},
    {"unloaded", NULL, unloaded},
    {"stopped", NULL, unloaded},
};

void why_summary(const struct why_now *now, yyjson_val *decisions, int64_t wall_ms, struct buf *out)
{
    struct past p = past_of(decisions, strcmp(now->state, "ready") == 0);
    buf_puts(out, now->model);
    size_t k = 0;
    while (k < TABLE_COUNT(situations) && strcmp(situations[k].state, now->state) != 0)
        k++;
    if (k < TABLE_COUNT(situations))
        situations[k].put(now, &p, wall_ms, out);
    else if (now->state[0])
        buf_printf(out, " is %s.", now->state);
    else
        unknown(decisions, wall_ms, out);
    if (now->heat[0])
        buf_printf(out, " %s.", now->heat);
}

void why_summary_all(const struct why_now *list, size_t n, struct buf *out)
{
    size_t shown = 0;
    for (size_t s = 0; s < TABLE_COUNT(situations); s++)
        for (size_t i = 0; i < n; i++) {
            if (strcmp(list[i].state, situations[s].state) != 0 || !situations[s].verb)
                continue;
            buf_printf(out, "%s%s %s", shown++ ? "; " : "", list[i].model, situations[s].verb);
            on_devices(&list[i], out);
            if (list[i].waiting)
                buf_printf(out, ", %llu request%s", (unsigned long long)list[i].waiting,
                           list[i].waiting == 1 ? " waits" : "s wait");
        }
    buf_puts(out, shown ? "." : "Nothing is loaded.");
}
