/* The model finder against yyjson: for every input both must agree whether it is JSON, and what the top-level
 * "model" is. The first byte chooses how the rest is cut into pieces, since the finder resumes. */
#include "base/json.h"
#include "proxy/body_model.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Depth by counting outside of strings: what the finder bounds and yyjson does not. */
static bool too_deep(const char *p, size_t n)
{
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (in_string && p[i] == '\\')
            i++;
        else if (p[i] == '"')
            in_string = !in_string;
        else if (!in_string && (p[i] == '{' || p[i] == '['))
            depth++;
        else if (!in_string && depth && (p[i] == '}' || p[i] == ']'))
            depth--;
        if (depth > BODY_MODEL_DEPTH)
            return true;
    }
    return false;
}

static void compare(yyjson_val *root, enum rc rc, const struct body_model *m, const char *text)
{
    yyjson_val *model = NULL, *key, *value;
    size_t models = 0, i, n;
    yyjson_obj_foreach(root, i, n, key, value)
    {
        if (!yyjson_equals_strn(key, "model", 5))
            continue;
        models++;
        model = value;
    }
    if (!yyjson_is_obj(root) || models > 1 || (model && !yyjson_is_str(model))) {
        assert(rc == RC_INVALID);
        return;
    }
    assert(rc == RC_OK);
    assert((model != NULL) == (m->value[BODY_MODEL].n > 0));
    char name[256];
    size_t name_n = 0;
    if (!model || !body_model_text(&m->value[BODY_MODEL], text, name, sizeof name, &name_n)) {
        /* Without a text: there is none, or it is too long, or it holds a NUL. */
        assert(!model || yyjson_get_len(model) + 5 > sizeof name ||
               memchr(yyjson_get_str(model), 0, yyjson_get_len(model)));
        return;
    }
    assert(name_n == yyjson_get_len(model) && !memcmp(name, yyjson_get_str(model), name_n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    size_t n = size - 1, step = data[0] ? data[0] : n + 1;
    /* Blocks of the very size: a read past the end is seen. */
    struct body_model m;
    body_model_init(&m);
    bool fine = true;
    for (size_t end = step < n ? step : n; fine; end = end + step < n ? end + step : n) {
        char *part = malloc(end ? end : 1);
        if (!part)
            abort();
        memcpy(part, data + 1, end);
        fine = body_model_scan(&m, part, end);
        assert(m.pos <= end && (!fine || m.pos == end));
        free(part);
        if (end == n)
            break;
    }
    char *text = malloc(n ? n : 1);
    if (!text)
        abort();
    memcpy(text, data + 1, n);
    struct err err;
    enum rc rc = body_model_end(&m, text, n, &err);
    assert(fine || rc == RC_INVALID);
    yyjson_doc *doc = yyjson_read(text, n, YYJSON_READ_NUMBER_AS_RAW);
    if (doc && !too_deep(text, n))
        compare(yyjson_doc_get_root(doc), rc, &m, text);
    else
        assert(rc != RC_OK);
    yyjson_doc_free(doc);
    free(text);
    return 0;
}
