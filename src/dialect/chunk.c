/* Events of a completion: see chunk.h. Layer dialect; any thread. */
#include "dialect/chunk.h"

static struct str text_of(yyjson_val *obj, const char *key)
{
    return json_str(obj, key, (struct str){"", 0});
}

static yyjson_val *object_of(yyjson_val *obj, const char *key)
{
    yyjson_val *v = yyjson_obj_get(obj, key);
    return yyjson_is_obj(v) ? v : NULL;
}

void chunk_read(struct str data, struct chunk *ret)
{
    *ret = (struct chunk){.kind = CHUNK_BAD};
    if (str_eq_c(str_trim(data), "[DONE]")) {
        ret->kind = CHUNK_DONE;
        return;
    }
    ret->doc = yyjson_read(data.p, data.n, YYJSON_READ_NOFLAG);
    yyjson_val *root = yyjson_doc_get_root(ret->doc);
    if (!yyjson_is_obj(root))
        return;
    ret->error = yyjson_obj_get(root, "error");
    if (ret->error && !yyjson_is_null(ret->error)) {
        ret->kind = CHUNK_ERROR;
        return;
    }
    ret->choices = yyjson_obj_get(root, "choices");
    if (!yyjson_is_arr(ret->choices))
        return;
    ret->id = text_of(root, "id");
    ret->model = text_of(root, "model");
    ret->fingerprint = text_of(root, "system_fingerprint");
    ret->created = json_u64(root, "created", 0);
    ret->usage = object_of(root, "usage");
    ret->timings = object_of(root, "timings");
    ret->progress = object_of(root, "prompt_progress");
    ret->kind = CHUNK_DELTA;
}

void chunk_release(struct chunk *c)
{
    yyjson_doc_free(c->doc);
    *c = (struct chunk){.kind = CHUNK_BAD};
}

/* An index that is absent is 0; one that is out of bounds is not of the form. */
static bool index_of(yyjson_val *v, uint32_t max, uint32_t *ret)
{
    yyjson_val *i = yyjson_obj_get(v, "index");
    if (i && (!yyjson_is_uint(i) || yyjson_get_uint(i) >= max))
        return false;
    *ret = i ? (uint32_t)yyjson_get_uint(i) : 0;
    return true;
}

bool chunk_choice_read(yyjson_val *v, struct chunk_choice *ret)
{
    struct chunk_choice c = {.index = 0};
    if (!yyjson_is_obj(v) || !index_of(v, CHUNK_CHOICES_MAX, &c.index))
        return false;
    yyjson_val *delta = yyjson_obj_get(v, "delta");
    c.finish = text_of(v, "finish_reason");
    c.stop = text_of(v, "stop_reason");
    c.content = delta ? text_of(delta, "content") : text_of(v, "text");
    c.role = text_of(delta, "role");
    c.reasoning = text_of(delta, "reasoning_content");
    c.refusal = text_of(delta, "refusal");
    c.calls = yyjson_obj_get(delta, "tool_calls");
    if (c.calls && !yyjson_is_arr(c.calls))
        c.calls = NULL;
    *ret = c;
    return true;
}

bool chunk_call_read(yyjson_val *v, struct chunk_call *ret)
{
    struct chunk_call c = {.index = 0};
    if (!yyjson_is_obj(v) || !index_of(v, CHUNK_CALLS_MAX, &c.index))
        return false;
    yyjson_val *function = yyjson_obj_get(v, "function");
    c.id = text_of(v, "id");
    c.type = text_of(v, "type");
    c.name = text_of(function, "name");
    c.arguments = text_of(function, "arguments");
    *ret = c;
    return true;
}
