/* Fuzz target of the reader of server-sent events. The first byte is the size of the pieces: the events must
 * be the same as of the whole text at once. */
#include "base/mem.h"
#include "base/sse.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool note(void *arg, struct str event, struct str data)
{
    struct buf *seen = arg;
    (void)buf_printf(seen, "%zu %zu ", event.n, data.n);
    (void)buf_put_str(seen, event);
    (void)buf_put_str(seen, data);
    return seen->n < 100000; /* an end that the reader of events asked for */
}

static enum rc read_by(struct str text, size_t step, struct buf *seen)
{
    struct sse sse = {0};
    struct err err;
    enum rc rc = RC_OK;
    for (size_t at = 0; at < text.n && rc == RC_OK; at += step) {
        size_t n = text.n - at < step ? text.n - at : step;
        char *piece = mem_calloc(n, 1); /* of its own, so that a read past it is seen */
        memcpy(piece, text.p + at, n);
        rc = sse_feed(&sse, (struct str){piece, n}, note, seen, &err);
        free(piece);
    }
    sse_release(&sse);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole = {0}, parts = {0};
    if (!size)
        return 0;
    struct str text = {(const char *)data + 1, size - 1};
    enum rc a = read_by(text, text.n + 1, &whole), b = read_by(text, data[0] % 16u + 1, &parts);
    if (a != b || whole.n != parts.n || (whole.n && memcmp(whole.data, parts.data, whole.n) != 0))
        abort();
    buf_release(&whole);
    buf_release(&parts);
    return 0;
}
