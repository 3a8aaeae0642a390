/* llama-server's slots: see struct runtime_slots. Layer runtime; pure.
 *
 * GET /slots lists them; what a slot holds is told from its first request on, and "prompt" is in it only
 * where the server was started for debugging. A state is written and read by POST
 * /slots/ID?action=save|restore. */
#include "base/json.h"
#include "runtime/llamacpp_priv.h"

#include <stdio.h>

static bool read_list(struct str answer, struct runtime_slot *out, size_t cap, size_t *ret_n)
{
    yyjson_doc *doc = NULL;
    if (json_parse(answer, "list of slots", &doc, NULL) != RC_OK)
        return false;
    yyjson_val *list = yyjson_doc_get_root(doc), *v;
    bool ok = yyjson_is_arr(list);
    size_t n = 0, i, max;
    yyjson_arr_foreach(list, i, max, v)
    {
        uint64_t id = json_u64(v, "id", UINT64_MAX), tokens = json_u64(v, "n_prompt_tokens", 0);
        if (id > UINT32_MAX || n == cap) {
            ok = ok && n == cap; /* more than can be used are left out */
            break;
        }
        out[n++] = (struct runtime_slot){.id = (uint32_t)id,
                                         .busy = json_bool(v, "is_processing", true),
                                         .request = json_u64(v, "id_task", UINT64_MAX) + 1,
                                         .tokens = tokens < UINT32_MAX ? (uint32_t)tokens : 0};
    }
    yyjson_doc_free(doc);
    if (ok)
        *ret_n = n;
    return ok;
}

static bool ask(bool save, uint32_t slot, const char *file, char *path, size_t path_cap, char *body,
                size_t body_cap)
{
    int p = snprintf(path, path_cap, "/slots/%u?action=%s", slot, save ? "save" : "restore");
    int b = snprintf(body, body_cap, "{\"filename\":\"%s\"}", file);
    return p > 0 && (size_t)p < path_cap && b > 0 && (size_t)b < body_cap;
}

static bool read_done(struct str answer, uint32_t *ret_tokens, uint64_t *ret_bytes)
{
    yyjson_doc *doc = NULL;
    if (json_parse(answer, "answer about a slot", &doc, NULL) != RC_OK)
        return false;
    yyjson_val *o = yyjson_doc_get_root(doc);
    uint64_t tokens = json_u64(o, "n_saved", json_u64(o, "n_restored", 0));
    uint64_t bytes = json_u64(o, "n_written", json_u64(o, "n_read", 0));
    yyjson_doc_free(doc);
    if (tokens == 0 || tokens > UINT32_MAX || bytes == 0)
        return false;
    *ret_tokens = (uint32_t)tokens;
    *ret_bytes = bytes;
    return true;
}

const struct runtime_slots llamacpp_slots = {
    .list_path = "/slots", .read_list = read_list, .ask = ask, .read_done = read_done};
