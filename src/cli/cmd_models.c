/* arriero models: the GGUF models of the given folders, or of the configured and the usual ones. Layer cli;
 * main thread; needs no daemon. */
#include "cli/cli_priv.h"

#include "base/mem.h"
#include "gguf/catalog.h"
#include "os/file.h"

#include <stddef.h>
#include <string.h>

struct models_options {
    bool caches;    /* --caches: the usual places too when folders are given */
    bool no_caches; /* --no-caches */
};

static const struct cli_option options[] = {
    {"caches", 0, CLI_FLAG, offsetof(struct models_options, caches), NULL,
     "also look in the usual places when a DIR is given", NULL},
    {"no-caches", 0, CLI_FLAG, offsetof(struct models_options, no_caches), NULL,
     "never look in the usual places", NULL},
    {.type = CLI_END},
};

/* "8.03 B", "134.52 M": powers of 1000, as model names have them. */
static const char *human_count(uint64_t n, char *out, size_t cap)
{
    static const char units[] = " KMBT";
    double value = (double)n;
    size_t unit = 0;
    while (value >= 999.995 && unit + 2 < sizeof units) {
        value /= 1000;
        unit++;
    }
    if (unit)
        snprintf(out, cap, "%.2f %c", value, units[unit]);
    else
        snprintf(out, cap, "%llu", (unsigned long long)n);
    return out;
}

/* A file's name may hold any bytes; JSON may not. */
static void add_clean(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, const char *text)
{
    struct buf safe = {0};
    text_put_safe(&safe, str_from(text), false);
    json_add_str(doc, o, key, buf_str(&safe));
    buf_release(&safe);
}

static yyjson_mut_val *clean_err(yyjson_mut_doc *doc, const struct err *err)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    add_clean(doc, o, "message", err->message);
    if (err->hint[0])
        add_clean(doc, o, "hint", err->hint);
    yyjson_mut_obj_add_str(doc, o, "code", rc_word(err->code));
    return o;
}

static void add_entry(yyjson_mut_doc *doc, yyjson_mut_val *list, const struct catalog_entry *e)
{
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
    const struct model *m = e->model;
    yyjson_mut_obj_add_str(doc, o, "id", e->id);
    add_clean(doc, o, "path", e->path);
    yyjson_mut_obj_add_str(doc, o, "source", e->source);
    if (m) {
        yyjson_mut_obj_add_str(doc, o, "architecture", m->architecture);
        yyjson_mut_obj_add_str(doc, o, "name", m->name);
        yyjson_mut_obj_add_str(doc, o, "quantization", m->quantization);
        yyjson_mut_obj_add_uint(doc, o, "parameters", m->parameters);
        yyjson_mut_obj_add_uint(doc, o, "context_train", m->context_train);
        yyjson_mut_obj_add_uint(doc, o, "layers", m->n_layer);
    }
    yyjson_mut_obj_add_uint(doc, o, "file_bytes", e->file_bytes);
    if (e->mmproj)
        add_clean(doc, o, "mmproj", e->mmproj);
    if (!m)
        yyjson_mut_obj_add_val(doc, o, "problem", clean_err(doc, &e->problem));
}

static int print_json(const struct catalog *c)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_val *models = yyjson_mut_obj_add_arr(doc, root, "models");
    for (size_t i = 0; i < c->n; i++)
        add_entry(doc, models, &c->entries[i]);
    yyjson_mut_val *notes = yyjson_mut_obj_add_arr(doc, root, "notes");
    for (size_t i = 0; i < c->n_notes; i++)
        yyjson_mut_arr_append(notes, clean_err(doc, &c->notes[i]));
    return cli_print_json(doc);
}

static void put_problem(struct buf *out, const struct err *err)
{
    buf_puts(out, "  ");
    text_put_safe(out, str_from(err->message), false);
    buf_puts(out, "\n");
    if (err->hint[0]) {
        buf_puts(out, "    hint: ");
        text_put_safe(out, str_from(err->hint), false);
        buf_puts(out, "\n");
    }
}

static void print_problems(const struct catalog *c)
{
    struct buf out = {0};
    bool any = false;
    for (size_t i = 0; i < c->n; i++) {
        if (c->entries[i].model)
            continue;
        buf_puts(&out, any ? "" : "\nNot usable:\n");
        any = true;
        put_problem(&out, &c->entries[i].problem);
    }
    for (size_t i = 0; i < c->n_notes; i++) {
        buf_puts(&out, i ? "" : "\nNotes:\n");
        put_problem(&out, &c->notes[i]);
    }
    output_buf(&out);
}

static size_t print_table(const struct catalog *c)
{
    static const char *const headings[] = {"MODEL",      "ARCHITECTURE", "SIZE",  "QUANTISATION",
                                           "PARAMETERS", "CONTEXT",      "SOURCE"};
    struct cli_table *t = cli_table_new(headings, TABLE_COUNT(headings));
    size_t shown = 0;
    for (size_t i = 0; i < c->n; i++) {
        const struct model *m = c->entries[i].model;
        char size[32], count[32];
        if (!m)
            continue;
        shown++;
        cli_table_cell(t, "%s", c->entries[i].id);
        cli_table_cell(t, "%s", m->architecture);
        cli_table_cell(t, "%s", str_human_bytes(c->entries[i].file_bytes, size, sizeof size));
        cli_table_cell(t, "%s", m->quantization);
        cli_table_cell(t, "%s", human_count(m->parameters, count, sizeof count));
        if (m->context_train)
            cli_table_cell(t, "%u", m->context_train);
        else
            cli_table_cell(t, "-");
        cli_table_cell(t, "%s%s", c->entries[i].source, c->entries[i].mmproj ? " +mmproj" : "");
    }
    if (shown)
        cli_table_print(t);
    else
        cli_table_free(t);
    return shown;
}

static int run(struct cli_call *call)
{
    const struct models_options *o = call->options;
    struct catalog *c = NULL;
    struct err err = {0};
    for (size_t i = 0; i < call->n_args; i++) {
        if (file_exists(call->args[i]))
            continue;
        (void)err_set(&err, RC_NOT_FOUND, "there is no file or folder %s", call->args[i]);
        err_hint(&err, "give folders with .gguf files, or nothing for the usual places");
        return cli_fail(call, &err);
    }
    const struct catalog_options opt = {
        .dirs = call->args, .n_dirs = call->n_args, .usual_caches = o->caches && !o->no_caches};
    enum rc rc = call->n_args ? catalog_scan(&opt, &c, &err) : shelf_scan(call, !o->no_caches, &c, &err);
    if (rc != RC_OK)
        return cli_fail(call, &err);
    int status = 0;
    if (call->json) {
        status = print_json(c);
    } else {
        if (!print_table(c))
            printf("No models found%s\n", call->n_args ? "." : "; give a folder: arriero models DIR");
        print_problems(c);
    }
    catalog_free(c);
    return status;
}

const struct cli_command cmd_models = {
    .name = "models",
    .group = "Look",
    .synopsis = "[--caches | --no-caches] [DIR…]",
    .summary = "list the models on this machine",
    .details =
        "Lists every GGUF model in the given folders, subfolders included. Without a folder it looks in "
        "those of the configuration (models_dirs), in those that a running daemon was started with, and in "
        "the "
        "usual places: arriero's own folder, llama.cpp's "
        "cache, the Hugging Face hub's cache, LM Studio and "
        "Ollama, found as those programs find them (LLAMA_CACHE, HF_HUB_CACHE, HF_HOME, OLLAMA_MODELS).\n\n"
        "The parts of a split model are one line. Projectors for images and sound (mmproj) are shown with "
        "their model. Files that cannot be used are listed below the table with the reason.",
    .options_size = sizeof(struct models_options),
    .options = options,
    .min_args = 0,
    .max_args = CLI_MAX_POSITIONAL,
    .run = run,
};
