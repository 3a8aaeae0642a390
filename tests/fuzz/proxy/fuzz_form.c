/* The finder of a form's field. The first byte chooses how the rest is cut into pieces, since the finder
 * resumes: in pieces and at once it must come to the same. A field that was found stands behind its head and
 * before a mark. */
#include "proxy/body_form.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum rc at_once(struct body_form *f, struct str type, const char *text, size_t n)
{
    struct err err;
    (void)body_form_init(f, type);
    return body_form_end(f, text, n, &err);
}

static enum rc in_pieces(struct body_form *f, struct str type, const char *text, size_t n, size_t step)
{
    struct err err;
    (void)body_form_init(f, type);
    for (size_t end = step; end < n; end += step) {
        char *part = malloc(end); /* of the very size: a read past the end is seen */
        if (!part)
            abort();
        memcpy(part, text, end);
        bool fine = body_form_scan(f, part, end);
        free(part);
        if (!fine)
            break;
    }
    return body_form_end(f, text, n, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    /* The first line is the Content-Type. */
    const char *line = (const char *)data + 1, *nl = memchr(line, '\n', size - 1);
    struct str type = {line, nl ? (size_t)(nl - line) : size - 1};
    size_t n = size - 1 - type.n - (nl != NULL), step = data[0] ? data[0] : 1;
    char *text = malloc(n ? n : 1);
    if (!text)
        abort();
    memcpy(text, (const char *)data + size - n, n);
    struct body_form whole, pieces;
    enum rc rc = at_once(&whole, type, text, n), rc2 = in_pieces(&pieces, type, text, n, step);
    assert(rc == rc2);
    if (rc == RC_OK) {
        assert(whole.model_seen == pieces.model_seen);
        assert(whole.model_at == pieces.model_at && whole.model_n == pieces.model_n);
    }
    if (rc == RC_OK && whole.model_seen) {
        assert(!memcmp(text + whole.model_at - 4, "\r\n\r\n", 4));
        assert(!memcmp(text + whole.model_at + whole.model_n, whole.mark, whole.mark_n));
    }
    free(text);
    return 0;
}
