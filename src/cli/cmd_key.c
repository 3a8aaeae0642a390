/* arriero key: API keys with scopes and limits. Layer cli; main thread.
 *
 * A running daemon makes the change itself and goes by it at once; without one the file is changed, and the
 * next daemon reads it. */
#include "cli/control.h"

#include "base/clock.h"
#include "base/mem.h"
#include "daemon/keyring.h"

#include <stddef.h>
#include <string.h>

struct options {
    struct cli_list scopes, models;
    uint32_t requests, tokens, concurrency;
    const char *expires, *priority, *file;
    bool captures;
};

static const struct cli_option options[] = {
    {"scope", 0, CLI_LIST, offsetof(struct options, scopes), "SCOPE",
     "infer (the default) or admin, which may also use the control API over TCP; may be repeated", NULL},
    {"model", 'm', CLI_LIST, offsetof(struct options, models), "MODEL",
     "a model it may use, or a pattern such as 'qwen*'; may be repeated; else every model", NULL},
    {"requests-per-minute", 0, CLI_U32, offsetof(struct options, requests), "N", "limit of requests", NULL},
    {"tokens-per-minute", 0, CLI_U32, offsetof(struct options, tokens), "N",
     "limit of tokens, read and written", NULL},
    {"concurrency", 0, CLI_U32, offsetof(struct options, concurrency), "N", "limit of requests at a time",
     NULL},
    {"expires", 0, CLI_STR, offsetof(struct options, expires), "WHEN",
     "when it stops working: after 30d or 12h, or on a day such as 2027-01-31", NULL},
    {"priority", 0, CLI_STR, offsetof(struct options, priority), "N",
     "-1000 to 1000: where requests wait, a higher one goes first (default 0)", NULL},
    {"captures", 0, CLI_FLAG, offsetof(struct options, captures), NULL,
     "keep the texts of its requests and answers for a while (arriero requests show)", NULL},
    {"file", 0, CLI_STR, offsetof(struct options, file), "FILE", "work on this file and ask no daemon", NULL},
    {.type = CLI_END},
};

/* ---- where the keys are ---- */

/* The daemon's answer to GET /keys; *ret_path is set, and RC_OK returned without a document, when there is no
 * daemon and the file itself is worked on. */
static enum rc find_keys(const struct cli_call *call, yyjson_doc **ret_doc, char *ret_path, size_t cap,
                         struct err *err)
{
    const struct options *o = call->options;
    struct config *c = NULL;
    *ret_doc = NULL;
    if (o->file) {
        snprintf(ret_path, cap, "%s", o->file);
        return RC_OK;
    }
    enum rc rc = control_get(call, "/keys", ret_doc, err);
    if (rc != RC_NOT_FOUND || call->socket) /* who names a socket means a daemon */
        return rc;
    const struct config_request req = {.file = NULL};
    rc = config_load(&req, &c, err);
    if (rc == RC_OK)
        keyring_path(c, ret_path, cap);
    config_free(c);
    return rc;
}

/* ---- add ---- */

static void add_list(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *name, const struct cli_list *l)
{
    yyjson_mut_val *list = l->n ? yyjson_mut_obj_add_arr(doc, o, name) : NULL;
    for (size_t i = 0; i < l->n; i++)
        yyjson_mut_arr_add_str(doc, list, l->items[i]);
}

static enum rc wish_of(const struct cli_call *call, yyjson_mut_doc *doc, struct err *err)
{
    const struct options *o = call->options;
    const struct {
        const char *name;
        uint32_t value;
    } numbers[] = {{"requests_per_minute", o->requests},
                   {"tokens_per_minute", o->tokens},
                   {"concurrency", o->concurrency}};
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    int64_t priority = 0;
    uint64_t ms;
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "name", call->args[1]);
    add_list(doc, root, "scopes", &o->scopes);
    add_list(doc, root, "models", &o->models);
    for (size_t i = 0; i < TABLE_COUNT(numbers); i++)
        if (numbers[i].value)
            yyjson_mut_obj_add_uint(doc, root, numbers[i].name, numbers[i].value);
    if (o->priority && !str_i64(str_from(o->priority), &priority))
        return err_set(err, RC_INVALID, "--priority got \"%s\", which is not a whole number", o->priority);
    if (priority)
        yyjson_mut_obj_add_sint(doc, root, "priority", priority);
    if (o->captures)
        yyjson_mut_obj_add_bool(doc, root, "captures", true);
    if (o->expires)
        yyjson_mut_obj_add_str(
            doc, root, str_duration_ms(str_from(o->expires), &ms) ? "expires_in" : "expires_at", o->expires);
    return RC_OK;
}

/* "infer; qwen*; 60 requests a minute, 2 at a time; until 2027-01-31 00:00:00" */
static void put_rights(struct buf *out, yyjson_val *k)
{
    static const struct {
        const char *name, *words;
    } limits[] = {{"requests_per_minute", "requests a minute"},
                  {"tokens_per_minute", "tokens a minute"},
                  {"concurrency", "at a time"}};
    char at[40];
    size_t i, n;
    yyjson_val *v;
    yyjson_arr_foreach(yyjson_obj_get(k, "scopes"), i, n, v)
        buf_printf(out, "%s%s", i ? ", " : "", yyjson_get_str(v));
    buf_puts(out, "; ");
    yyjson_arr_foreach(yyjson_obj_get(k, "models"), i, n, v)
    {
        buf_puts(out, i ? ", " : "");
        text_put_safe(out, str_from(yyjson_get_str(v)), false);
    }
    if (n == 0)
        buf_puts(out, "every model");
    bool first = true;
    for (i = 0; i < TABLE_COUNT(limits); i++) {
        uint64_t value = json_u64(k, limits[i].name, 0);
        if (value)
            buf_printf(out, "%s%llu %s", first ? "; " : ", ", (unsigned long long)value, limits[i].words);
        first = first && !value;
    }
    struct str until = json_str(k, "expires_at", STR(""));
    if (until.n)
        buf_printf(out, "; until %s", control_time(until, at, sizeof at));
}

static int show_added(const struct cli_call *call, yyjson_doc *doc, bool by_daemon)
{
    if (call->json)
        return control_print(doc);
    yyjson_val *k = yyjson_doc_get_root(doc);
    struct buf out = {0}, note = {0};
    buf_put_str(&out, json_str(k, "key", STR("")));
    buf_puts(&out, "\n");
    output_buf(&out);
    fflush(stdout);
    buf_printf(&note, "Key %.*s: ", STR_ARG(json_str(k, "id", STR("?"))));
    put_rights(&note, k);
    buf_printf(&note, ".\nIt is shown this once. %s\n",
               by_daemon ? "The daemon takes it from now on."
                         : "No daemon runs here: the next one takes it.");
    fprintf(stderr, "%s", note.data);
    buf_release(&note);
    yyjson_doc_free(doc);
    return 0;
}

/* Runs on the file what the daemon would run, so that both give the same answer. */
static enum rc on_file(const char *path, yyjson_mut_doc *wish, const char *revoke, yyjson_doc **ret_doc,
                       struct err *err)
{
    struct buf out = {0};
    yyjson_doc *read = wish ? yyjson_mut_doc_imut_copy(wish, NULL) : NULL;
    enum rc rc = revoke ? keyring_revoke(path, str_from(revoke), &out, err)
                        : keyring_add(path, yyjson_doc_get_root(read), clock_wall_ms(), &out, err);
    if (rc == RC_OK)
        rc = json_parse(buf_str(&out), "the key", ret_doc, err);
    yyjson_doc_free(read);
    buf_release(&out);
    return rc;
}

static int add(struct cli_call *call)
{
    char path[4300] = "";
    yyjson_doc *doc = NULL;
    struct err err;
    yyjson_mut_doc *wish = yyjson_mut_doc_new(NULL);
    enum rc rc = wish_of(call, wish, &err);
    if (rc != RC_OK) {
        yyjson_mut_doc_free(wish);
        return cli_usage(call, &err);
    }
    rc = find_keys(call, &doc, path, sizeof path, &err);
    yyjson_doc_free(doc);
    if (rc == RC_OK && path[0])
        rc = on_file(path, wish, NULL, &doc, &err);
    else if (rc == RC_OK)
        rc = control_post(call, "/keys", take_ptr(wish), CLIENT_TIMEOUT_MS, &doc, &err);
    yyjson_mut_doc_free(wish);
    return rc == RC_OK ? show_added(call, doc, !path[0]) : cli_fail(call, &err);
}

/* ---- list ---- */

static void add_row(struct cli_table *t, yyjson_val *k)
{
    struct buf rights = {0};
    put_rights(&rights, k);
    cli_table_cell(t, "%.*s", STR_ARG(json_str(k, "id", STR("?"))));
    cli_table_cell(t, "%.*s", STR_ARG(json_str(k, "name", STR(""))));
    cli_table_cell(t, "%s%s", json_bool(k, "expired", false) ? "expired: " : "", rights.data);
    cli_table_cell(t, "%llu", (unsigned long long)json_u64(k, "requests", 0));
    cli_table_cell(t, "%llu", (unsigned long long)json_u64(k, "tokens", 0));
    cli_table_cell(t, "%.*s", STR_ARG(json_str(k, "source", STR(""))));
    buf_release(&rights);
}

static enum rc list_file(const char *path, yyjson_doc **ret_doc, struct err *err)
{
    struct key_set set = {0};
    enum rc rc = keyring_read(path, &set, err);
    if (rc != RC_OK)
        return rc;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc), *keys = yyjson_mut_obj_add_arr(doc, root, "keys");
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_strcpy(doc, root, "file", path);
    for (size_t i = 0; i < set.n; i++)
        yyjson_mut_arr_append(keys, keyring_view(doc, &set.specs[i]));
    *ret_doc = yyjson_mut_doc_imut_copy(doc, NULL);
    yyjson_mut_doc_free(doc);
    key_set_release(&set);
    return RC_OK;
}

static int list(struct cli_call *call)
{
    static const char *const headings[] = {"ID", "NAME", "MAY USE", "REQUESTS", "TOKENS", "FROM"};
    char path[4300] = "";
    yyjson_doc *doc = NULL;
    struct err err;
    size_t i, n;
    yyjson_val *k;
    enum rc rc = find_keys(call, &doc, path, sizeof path, &err);
    if (rc == RC_OK && path[0])
        rc = list_file(path, &doc, &err);
    if (rc != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    yyjson_val *keys = yyjson_obj_get(yyjson_doc_get_root(doc), "keys");
    if (yyjson_arr_size(keys) == 0) {
        puts("There are no API keys. To make one: arriero key add NAME");
    } else {
        struct cli_table *t = cli_table_new(headings, TABLE_COUNT(headings));
        yyjson_arr_foreach(keys, i, n, k) add_row(t, k);
        cli_table_print(t);
    }
    yyjson_doc_free(doc);
    return 0;
}

/* ---- revoke ---- */

static int revoke_key(struct cli_call *call)
{
    char path[4300] = "";
    yyjson_doc *doc = NULL;
    struct err err;
    enum rc rc = find_keys(call, &doc, path, sizeof path, &err);
    yyjson_doc_free(doc);
    if (rc == RC_OK && path[0]) {
        rc = on_file(path, NULL, call->args[1], &doc, &err);
    } else if (rc == RC_OK) {
        yyjson_mut_doc *body = yyjson_mut_doc_new(NULL);
        yyjson_mut_val *root = yyjson_mut_obj(body);
        yyjson_mut_doc_set_root(body, root);
        yyjson_mut_obj_add_str(body, root, "id", call->args[1]);
        rc = control_post(call, "/keys/revoke", body, CLIENT_TIMEOUT_MS, &doc, &err);
    }
    if (rc != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    struct buf out = {0};
    yyjson_val *k = yyjson_doc_get_root(doc);
    buf_printf(&out, "Key %.*s (", STR_ARG(json_str(k, "id", STR("?"))));
    text_put_safe(&out, json_str(k, "name", STR("")), false);
    buf_puts(&out, ") opens nothing any more. Requests under way end as they are.\n");
    output_buf(&out);
    yyjson_doc_free(doc);
    return 0;
}

/* ---- the command ---- */

static const struct {
    const char *verb;
    size_t args;
    int (*run)(struct cli_call *call);
} verbs[] = {{"add", 2, add}, {"list", 1, list}, {"revoke", 2, revoke_key}};

static int run(struct cli_call *call)
{
    struct err err;
    for (size_t i = 0; i < TABLE_COUNT(verbs); i++)
        if (strcmp(call->args[0], verbs[i].verb) == 0 && call->n_args == verbs[i].args)
            return verbs[i].run(call);
    err.code = err_set(&err, RC_INVALID, "\"%s\" with %zu arguments is nothing to do with keys",
                       call->args[0], call->n_args - 1);
    err_hint(&err, "arriero key add NAME, arriero key list, or arriero key revoke ID");
    return cli_usage(call, &err);
}

const struct cli_command cmd_key = {
    .name = "key",
    .group = "Daemon",
    .synopsis = "add NAME | list | revoke ID",
    .summary = "make, list and revoke API keys",
    .details =
        "add makes a key and prints it on stdout, this one time: only a salted digest is kept. As soon as "
        "there "
        "is a key, requests over TCP need one. list shows every key, what it may use, and what it has used "
        "since the daemon started. revoke takes an id or a name.\n\n"
        "A running daemon goes by the change at once. Without one the file is changed: keys_file of the "
        "configuration, else keys.json in the state directory. When the last key is revoked, nobody may "
        "enter; "
        "removing the file opens the door again, where that is allowed.",
    .options_size = sizeof(struct options),
    .options = options,
    .min_args = 1,
    .max_args = 2,
    .run = run,
};
