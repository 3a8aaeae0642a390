/* The roster: rows as text and back, hostile rows, and which rows are of processes that live. */
#include "base/mem.h"
#include "os/file.h"
#include "pool/roster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/arr-roster-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return rmdir(dir); /* a scan leaves only rows of the living */
}

/* Of this process, on two devices. */
static struct roster_row *some_row(void)
{
    struct roster_row *r = mem_new(struct roster_row);
    r->pid = getpid();
    assert_true(process_start_ticks(r->pid, &r->start_ticks));
    assert_true(process_command_hash(r->pid, &r->command_hash));
    process_boot_id(r->boot, sizeof r->boot);
    snprintf(r->id, sizeof r->id, "org/model:Q4#3");
    snprintf(r->model, sizeof r->model, "org/model:Q4");
    snprintf(r->path, sizeof r->path, "/models/a \"b\".gguf");
    snprintf(r->log, sizeof r->log, "org_model_Q4.log");
    snprintf(r->version, sizeof r->version, "0.7.0 (build 11669)");
    r->settings_hash = UINT64_MAX - 5;
    r->port = 40123;
    r->ready = true;
    r->load_seconds = 1.25;
    r->argv[r->n_argv++] = mem_strdup("llama-server");
    r->argv[r->n_argv++] = mem_strdup("--no-webui");
    struct plan *p = &r->plan;
    p->fits = true;
    p->smaller = PLAN_AS_ASKED;
    p->strategy = PLAN_BALANCED;
    p->threads = 4;
    p->used[p->n_used++] = 1;
    p->speed.decode_tps = 33.5;
    plan_params_default(&p->estimate.params);
    p->estimate.params.ctx = 8192;
    p->estimate.params.parallel = 4;
    p->estimate.params.n_tensor_split = 1;
    p->estimate.params.tensor_split[0] = 0.75F;
    p->estimate.n_parts = 2;
    p->estimate.parts[0] = (struct plan_part){.name = "CUDA1", .kind = PLAN_GPU, .model_bytes = 1ull << 33};
    p->estimate.parts[1] = (struct plan_part){.name = "Host", .kind = PLAN_HOST, .compute_bytes = 12345};
    plan_device_named(&r->machine.devices[0], STR("CUDA0"), 8000 * MIB, 1000 * MIB);
    plan_device_named(&r->machine.devices[1], STR("CUDA1"), 24000 * MIB, 20000 * MIB);
    r->machine.n_devices = 2;
    r->machine.host.cores = 8;
    r->reserve.n = 1;
    snprintf(r->reserve.rows[0].key, sizeof r->reserve.rows[0].key, "GPU-1");
    snprintf(r->reserve.rows[0].name, sizeof r->reserve.rows[0].name, "CUDA1");
    r->reserve.rows[0].bytes = 1ull << 33;
    r->reserve.host_bytes = 99;
    r->measured.n_parts = 1;
    r->measured.parts[0] = (struct plan_part){.name = "CUDA1", .model_bytes = (1ull << 33) + 1};
    return r;
}

static char *text_of(const struct roster_row *r)
{
    struct buf out = {0};
    struct err err;
    assert_int_equal(roster_format(r, &out, &err), RC_OK);
    return buf_take(&out);
}

static void test_a_row_comes_back_as_it_was(void **state)
{
    (void)state;
    struct err err;
    struct roster_row *r = some_row(), *back;
    char *text = text_of(r);
    if (roster_parse(str_from(text), &back, &err) != RC_OK)
        fail_msg("%s", err.message);
    char *again = text_of(back);
    assert_string_equal(text, again);
    assert_int_equal(back->settings_hash, UINT64_MAX - 5);
    assert_string_equal(back->path, r->path);
    assert_string_equal(back->argv[1], "--no-webui");
    assert_int_equal(back->plan.smaller, PLAN_AS_ASKED);
    assert_int_equal(back->plan.used[0], 1);
    assert_int_equal(back->plan.estimate.params.gpu_layers, PLAN_ALL_LAYERS);
    assert_true(back->plan.estimate.params.tensor_split[0] == 0.75F);
    assert_int_equal(back->measured.parts[0].model_bytes, (1ull << 33) + 1);
    assert_int_equal(back->machine.devices[1].backend, PLAN_CUDA);
    assert_null(back->plan.estimate.params.extras);
    free(text);
    free(again);
    roster_row_free(r);
    roster_row_free(back);
    roster_row_free(NULL);
}

static void test_a_field_of_another_version_is_left_out(void **state)
{
    (void)state;
    struct err err;
    struct roster_row *back;
    assert_int_equal(
        roster_parse(STR("{\"form\":1,\"new\":[1],\"pid\":9,\"start_ticks\":1,\"port\":80,\"id\":\"a#1\","
                         "\"model\":\"a\",\"path\":\"/a\",\"params\":{\"type_k\":1,\"type_v\":1},"
                         "\"parts\":[{\"kind\":1}]}"),
                     &back, &err),
        RC_OK);
    assert_false(back->ready);
    roster_row_free(back);
}

/* The text with `from` replaced. */
static void refuses(const char *from, const char *to)
{
    struct err err = {0};
    struct roster_row *r = some_row(), *back = NULL;
    char *text = text_of(r);
    const char *at = strstr(text, from);
    struct buf bad = {0};
    if (!at)
        fail_msg("%s is not in %s", from, text);
    buf_append(&bad, text, (size_t)(at - text));
    buf_puts(&bad, to);
    buf_puts(&bad, at + strlen(from));
    if (roster_parse(buf_str(&bad), &back, &err) == RC_OK)
        fail_msg("%s was taken for %s", to, from);
    assert_null(back);
    assert_true(err.message[0]);
    buf_release(&bad);
    free(text);
    roster_row_free(r);
}

static void test_hostile_rows_are_refused(void **state)
{
    (void)state;
    refuses("\"form\": 1", "\"form\": 2");
    refuses("\"port\": 40123", "\"port\": 0");
    refuses("\"port\": 40123", "\"port\": 70000");
    refuses("\"port\": 40123", "\"port\": \"40123\"");
    refuses("\"id\": \"org", "\"id\": \"a\\u0000b");
    refuses("\"log\": \"org_model", "\"log\": \"../org");
    refuses("\"log\": \"org_model", "\"log\": \"..");
    refuses("\"load_seconds\": 1.25", "\"load_seconds\": -1");
    refuses("\"load_seconds\": 1.25", "\"load_seconds\": 1e300");
    refuses("\"ready\": true", "\"ready\": 1");
    refuses("\"host_bytes\": 99", "\"host_bytes\": 18446744073709551615");
    refuses("\"type_k\": 1", "\"type_k\": 4000000000");
    refuses("\"strategy\": 2", "\"strategy\": 77");
    refuses("\"used\": [\n    1", "\"used\": [\n    2");
    refuses("\"parts\": [", "\"parts\": [], \"other\": [");
    refuses("\"devices\": [", "\"devices\": 7, \"other\": [");
    refuses("\"plan\": {", "\"plan\": [], \"other\": {");
    refuses("\"argv\": [", "\"argv\": [1, ");
    refuses("{\n", "[\n");
    struct err err;
    struct roster_row *r = some_row(), *back;
    for (pid_t pid = -1; pid <= 1; pid++) {
        r->pid = pid;
        char *text = text_of(r);
        assert_int_equal(roster_parse(str_from(text), &back, &err), RC_INVALID);
        free(text);
    }
    roster_row_free(r);
    assert_true(roster_parse(STR(""), &back, &err) != RC_OK);
    assert_true(roster_parse(STR("null"), &back, &err) != RC_OK);
}

static bool file_is_there(pid_t pid)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%ld.json", dir, (long)pid);
    return file_exists(path);
}

static size_t scan(char *note, size_t cap)
{
    struct roster *s = roster_scan(dir);
    size_t n = s->n;
    if (note)
        snprintf(note, cap, "%s", s->n_notes ? s->notes[0] : "");
    roster_free(s);
    return n;
}

static void test_rows_of_the_living_are_found(void **state)
{
    (void)state;
    struct err err;
    struct roster_row *r = some_row();
    assert_int_equal(scan(NULL, 0), 0);
    assert_int_equal(roster_save(dir, r, &err), RC_OK);
    assert_int_equal(scan(NULL, 0), 1);
    r->command_hash = 0; /* it was not ready yet */
    assert_int_equal(roster_save(dir, r, &err), RC_OK);
    assert_int_equal(scan(NULL, 0), 1);
    assert_true(file_is_there(r->pid));
    roster_drop(dir, r->pid);
    assert_int_equal(scan(NULL, 0), 0);
    roster_drop(dir, r->pid);
    assert_int_equal(roster_save("/nowhere/at/all", r, &err), RC_IO);
    roster_row_free(r);
}

/* A number that is another process's by now: no row, and nobody is touched. */
static void test_rows_of_others_are_taken_away(void **state)
{
    (void)state;
    char note[800];
    struct err err;
    struct roster_row *r = some_row();
    r->start_ticks++;
    assert_int_equal(roster_save(dir, r, &err), RC_OK);
    assert_int_equal(scan(note, sizeof note), 0);
    assert_non_null(strstr(note, "is another one by now and is left alone"));
    assert_false(file_is_there(r->pid));
    r->start_ticks--;
    r->command_hash++;
    assert_int_equal(roster_save(dir, r, &err), RC_OK);
    assert_int_equal(scan(note, sizeof note), 0);
    assert_non_null(strstr(note, "another command"));
    r->command_hash--;
    r->boot[0] = r->boot[0] == 'a' ? 'b' : 'a';
    assert_int_equal(roster_save(dir, r, &err), RC_OK);
    assert_int_equal(scan(note, sizeof note), 0);
    assert_string_equal(note, ""); /* the machine was started anew: nothing to tell */
    roster_row_free(r);
}

static void test_rows_of_the_dead_and_rubbish_are_taken_away(void **state)
{
    (void)state;
    char path[128], note[800];
    struct err err;
    struct roster_row *r = some_row();
    r->pid = fork();
    if (r->pid == 0)
        _exit(0);
    assert_int_equal(roster_save(dir, r, &err), RC_OK);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)r->pid, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(scan(note, sizeof note), 0); /* a zombie */
    assert_int_equal(waitpid(r->pid, NULL, 0), r->pid);
    assert_int_equal(roster_save(dir, r, &err), RC_OK);
    assert_int_equal(scan(note, sizeof note), 0);
    assert_string_equal(note, "");
    snprintf(path, sizeof path, "%s/77.json", dir);
    assert_int_equal(file_replace(path, STR("{"), 0600, &err), RC_OK);
    assert_int_equal(scan(note, sizeof note), 0);
    assert_non_null(strstr(note, "77.json is no row"));
    snprintf(path, sizeof path, "%s/77.json.Xyzabc", dir);
    assert_int_equal(file_replace(path, STR("{"), 0600, &err), RC_OK);
    assert_int_equal(scan(NULL, 0), 0);
    roster_row_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_row_comes_back_as_it_was),
        cmocka_unit_test(test_a_field_of_another_version_is_left_out),
        cmocka_unit_test(test_hostile_rows_are_refused),
        cmocka_unit_test_setup_teardown(test_rows_of_the_living_are_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rows_of_others_are_taken_away, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rows_of_the_dead_and_rubbish_are_taken_away, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
