/* A decision of the daemon as people read it: see control.h. */
#include "cli/control.h"

#include "daemon/why.h"

void control_decision(struct buf *out, yyjson_val *d, size_t width)
{
    char time[40], duration[24];
    struct str text = why_verb(json_str(d, "kind", STR("?")));
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
