/* Progress of requests that wait: see progress.h. */
#include "dialect/progress.h"

#include "base/mem.h"
#include "dialect/errors.h"

#include <inttypes.h>

static void put_seconds(struct buf *out, const char *name, uint64_t ms)
{
    (void)buf_printf(out, ",\"%s\":%" PRIu64 ".%" PRIu64, name, ms / 1000, ms % 1000 / 100);
}

void progress_put_json(const struct dialect_progress *p, struct buf *out)
{
    (void)buf_printf(out, "{\"state\":\"%s\"", p->state);
    error_put_member(out, "model", p->model);
    error_put_member(out, "instance", p->instance);
    if (p->position)
        (void)buf_printf(out, ",\"position\":%" PRIu32, p->position);
    if (p->percent_known)
        (void)buf_printf(out, ",\"percent\":%u", p->percent);
    if (p->expected_known)
        put_seconds(out, "expected_s", p->expected_ms);
    put_seconds(out, "waited_s", p->waited_ms);
    (void)buf_puts(out, "}");
}

void progress_put_comment(const struct dialect_progress *p, struct buf *out)
{
    (void)buf_puts(out, ": arriero ");
    progress_put_json(p, out);
    (void)buf_puts(out, "\n\n");
}
