/* A plan for people and for programs: a table with a bar a device, reasons, what was not chosen, the command
 * line; or the JSON of the contract. Layer cli; main thread. */
#include "cli/plan_show.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

void plan_command(const struct model *m, const struct plan *plan, const struct plan_machine *machine,
                  bool embedding, struct plan_command *c)
{
    const struct runtime_ops *ops = runtime_find(STR("llama-server"));
    struct runtime_caps *caps = mem_calloc(1, sizeof *caps);
    const char *slash = strrchr(m->path, '/');
    struct str file = str_from(slash ? slash + 1 : m->path);
    if (str_ends(file, ".gguf"))
        file.n -= 5;
    const struct plan_extras *x = plan->estimate.params.extras;
    const char *stem = arena_strndup(&c->arena, file.p, file.n);
    const struct runtime_job job = {.model = m,
                                    .model_path = m->path,
                                    .served_name = stem,
                                    .plan = plan,
                                    .machine = machine,
                                    .host = "127.0.0.1",
                                    .port = 8080,
                                    .embedding = embedding,
                                    .mmproj_path = x && x->projector ? x->projector->path : NULL,
                                    .extras = x};
    bool here = ops && !runtime_find_llama_server(NULL, c->binary, sizeof c->binary, NULL) &&
                !ops->probe(c->binary, caps, NULL);
    if (ops && !here) /* as a current build would be told */
        ops->assume("llama-server", caps);
    c->found = here;
    c->known = ops && !ops->command(caps, &job, &c->arena, &c->cmd, NULL);
    free(caps);
}

/* The child's environment as far as it differs from ours. */
static bool is_inherited(const char *entry)
{
    for (char **e = environ; *e; e++)
        if (!strcmp(*e, entry))
            return true;
    return false;
}

static void add_command(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct plan_command *c)
{
    yyjson_mut_val *argv = yyjson_mut_obj_add_arr(doc, root, "argv");
    for (size_t i = 0; c->known && c->cmd.argv[i]; i++)
        yyjson_mut_arr_add_strcpy(doc, argv, c->cmd.argv[i]);
    yyjson_mut_val *env = yyjson_mut_obj_add_obj(doc, root, "env");
    for (size_t i = 0; c->known && c->cmd.env && c->cmd.env[i]; i++) {
        struct str value = str_from(c->cmd.env[i]), name = str_cut(&value, '=');
        if (!is_inherited(c->cmd.env[i]))
            yyjson_mut_obj_add(env, yyjson_mut_strncpy(doc, name.p, name.n),
                               yyjson_mut_strncpy(doc, value.p, value.n));
    }
}

/* The word as a shell reads it: quoted if it holds more than plain characters. */
static void put_shell_word(struct buf *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,+@%";
    if (*word && !word[strspn(word, plain)]) {
        buf_puts(out, word);
        return;
    }
    buf_puts(out, "'");
    for (; *word; word++)
        if (*word == '\'')
            buf_puts(out, "'\\''");
        else
            buf_append(out, word, 1);
    buf_puts(out, "'");
}

static void put_command(struct buf *out, const struct plan_command *c)
{
    if (!c->known)
        return;
    buf_puts(out,
             c->found ? "\nTo run it by hand\n  " : "\nTo run it by hand, once llama.cpp is installed\n  ");
    for (size_t i = 0; c->cmd.argv[i]; i++) {
        if (i)
            buf_puts(out, " ");
        put_shell_word(out, c->cmd.argv[i]);
    }
    buf_puts(out, "\n");
}

/* ---- the table ---- */

#define BAR   12
#define GIB   (1024.0 * 1024 * 1024)
#define WIDTH 80

static void put_bar(struct buf *out, uint64_t used, uint64_t room)
{
    double share = room ? (double)used / (double)room : 0;
    int full = (int)(share * BAR + 0.5);
    full = full > BAR ? BAR : full;
    buf_puts(out, "  [");
    for (int i = 0; i < BAR; i++)
        buf_puts(out, i < full ? "#" : ".");
    buf_printf(out, "] %3.0f %%\n", 100 * share);
}

void plan_show_parts(struct buf *out, const struct plan_part *parts, size_t n, uint64_t host_free)
{
    buf_puts(out, "GiB       WEIGHTS   CACHE  GRAPHS   OTHER   TOTAL    FREE\n");
    for (size_t i = 0; i < n; i++) {
        const struct plan_part *p = &parts[i];
        bool host = p->kind == PLAN_HOST;
        uint64_t room = host ? host_free : p->free_bytes, total = plan_part_total(p);
        buf_printf(out, "%-9.9s %7.2f %7.2f %7.2f %7.2f %7.2f %7.2f", host ? "RAM" : p->name,
                   (double)p->model_bytes / GIB, (double)p->context_bytes / GIB,
                   (double)p->compute_bytes / GIB, (double)p->overhead_bytes / GIB, (double)total / GIB,
                   (double)room / GIB);
        put_bar(out, total, room);
    }
}

void plan_show_wrapped(struct buf *out, const char *lead, const char *text)
{
    size_t indent = strlen(lead), at = indent;
    buf_puts(out, lead);
    struct str rest = str_from(text);
    for (bool first = true; rest.n; first = false) {
        struct str word = str_cut(&rest, ' ');
        size_t w = text_width(word);
        if (!first && at + 1 + w > WIDTH) {
            buf_puts(out, "\n");
            for (size_t i = 0; i < indent; i++)
                buf_puts(out, " ");
            at = indent;
        } else if (!first) {
            buf_puts(out, " ");
            at++;
        }
        buf_put_str(out, word);
        at += w;
    }
    buf_puts(out, "\n");
}

static void put_head(struct buf *out, const struct plan_view *v)
{
    char size[32], line[320];
    const struct model *m = v->m;
    snprintf(line, sizeof line, "%.120s: %s %s, %s, %u layers, trained for %u tokens", m->name,
             m->architecture, m->quantization, str_human_bytes(m->tensor_bytes, size, sizeof size),
             m->n_layer, m->context_train);
    plan_show_wrapped(out, "", line);
    for (size_t i = 0; i < v->machine->n_devices; i++)
        if (v->machine->devices[i].model[0])
            buf_printf(out, "%s is %s\n", v->machine->devices[i].name, v->machine->devices[i].model);
    if (v->imagined && v->machine->host.model[0])
        buf_printf(out, "Host: %s\n", v->machine->host.model);
    buf_puts(out, "\n");
}

static void put_answer(struct buf *out, const struct plan_view *v)
{
    const struct plan *p = v->plan;
    const struct ggml_type_info *k = ggml_type_info(p->estimate.params.type_k);
    char line[320];
    buf_puts(out, "\n");
    snprintf(
        line, sizeof line,
        "%u tokens of context in %u slot%s, cache %s. About %.1f tokens/s when writing, %.0f when reading; "
        "%.1f s to load.",
        p->estimate.params.ctx, p->estimate.params.parallel, p->estimate.params.parallel == 1 ? "" : "s",
        k ? k->word : "unknown", p->speed.decode_tps, p->speed.prefill_tps, p->speed.load_seconds);
    plan_show_wrapped(out, "", line);
    if (v->room_tokens > p->estimate.params.ctx) {
        snprintf(line, sizeof line, "There would be room for %u tokens.", v->room_tokens);
        plan_show_wrapped(out, "", line);
    }
}

static bool is_told_above(const char *code)
{
    return !strcmp(code, "speed") || !strcmp(code, "device") || !strcmp(code, "host") || !strcmp(code, "ctx");
}

static void put_reasons(struct buf *out, const struct plan *p)
{
    bool any = false;
    for (uint32_t i = 0; i < p->n_reasons; i++) {
        if (p->fits && is_told_above(p->reasons[i].code))
            continue;
        if (!any)
            buf_puts(out, p->fits ? "\nWhy\n" : "Tried\n");
        any = true;
        plan_show_wrapped(out, "  ", p->reasons[i].text);
    }
    if (p->n_rejected)
        buf_puts(out, "\nNot chosen\n");
    for (uint32_t i = 0; i < p->n_rejected; i++)
        plan_show_wrapped(out, "  ", p->rejected[i].text);
    if (p->n_alternatives)
        buf_puts(out, "\nOther strategies\n");
    for (uint32_t i = 0; i < p->n_alternatives; i++) {
        char line[260];
        snprintf(line, sizeof line, "%s: %s", plan_strategy_word(p->alternatives[i].strategy),
                 p->alternatives[i].text);
        plan_show_wrapped(out, "  ", line);
    }
}

void plan_show_text(const struct plan_view *v)
{
    struct buf text = {0}, safe = {0};
    put_head(&text, v);
    if (v->plan->fits) {
        buf_printf(&text, "Strategy %s\n", plan_strategy_word(v->plan->strategy));
        plan_show_parts(&text, v->plan->estimate.parts, v->plan->estimate.n_parts,
                        v->machine->host.free_bytes);
        put_answer(&text, v);
    }
    put_reasons(&text, v->plan);
    put_command(&text, v->command);
    text_put_safe(&safe, buf_str(&text), true); /* names come from files */
    buf_release(&text);
    output_buf(&safe);
    if (v->verified->n)
        plan_verify_print(v->verified);
    if (!v->imagined)
        known_print(v->known);
}

int plan_show_json(const struct plan_view *v, const struct err *failed)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = plan_json(doc, v->m, v->plan);
    yyjson_mut_doc_set_root(doc, root);
    add_command(doc, root, v->command);
    yyjson_mut_obj_add_uint(doc, root, "room_tokens", v->room_tokens);
    known_json(doc, root, v->known);
    if (v->verified->n)
        plan_verify_json(doc, root, v->verified);
    if (failed)
        yyjson_mut_obj_add_val(doc, root, "error", json_err(doc, failed));
    int status = cli_print_json(doc);
    return failed ? 1 : status;
}
