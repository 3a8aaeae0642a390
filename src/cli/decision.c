/* A decision of the daemon as people read it: see control.h. */
#include "cli/control.h"

/* The kinds of decisions as they read for people; another kind is shown as it is. */
static const struct {
    const char *kind, *text;
} kinds[] = {
    {"load", "was placed"},
    {"ready", "became ready"},
    {"evict", "was unloaded to make room"},
    {"unload", "was unloaded"},
    {"fail", "failed to load"},
    {"ladder", "is tried again with less"},
    {"breaker", "is left alone"},
    {"refuse", "was refused"},
    {"crash", "crashed"},
    {"wait", "waits for memory"},
    {"reset", "is held back no longer"},
    {"kv_saved", "was written down"},
    {"kv_restored", "goes on where it was"},
    {"kv_failed", "lost a conversation"},
    {"kv_off", "keeps no more conversations"},
    {"shrink", "gives memory to others"},
    {"grow", "takes memory back"},
    {"pressure", "memory pressure"},
};

void control_decision(struct buf *out, yyjson_val *d, size_t width)
{
    char time[40], duration[24];
    struct str kind = json_str(d, "kind", STR("?")), text = kind;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (str_eq_c(kind, kinds[i].kind))
            text = str_from(kinds[i].text);
    struct str instance = json_str(d, "instance", STR("")), model = json_str(d, "model", instance);
    buf_printf(out, "%s  ", control_time(json_str(d, "at", STR("?")), time, sizeof time));
    text_put_safe(out, model, false);
    buf_puts(out, model.n ? " " : "");
    text_put_safe(out, text, false);
    double seconds = json_double(d, "seconds", 0);
    if (seconds >= 0.001 && seconds < 1e9)
        buf_printf(out, " after %s", control_duration((uint64_t)(seconds * 1000), duration, sizeof duration));
    buf_puts(out, "\n");
    size_t i, n;
    yyjson_val *r, *reasons = yyjson_obj_get(d, "reasons");
    yyjson_arr_foreach(reasons, i, n, r)
    {
        struct buf line = {0};
        text_put_safe(&line, json_str(r, "text", json_str(r, "code", STR("?"))), false);
        help_fill(out, line.data ? line.data : "", 4, width);
        buf_release(&line);
    }
}

size_t control_width(void)
{
    size_t width = output_width();
    return width == 0 || width > 110 ? 110 : width;
}
