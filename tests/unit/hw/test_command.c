/* `arriero gpus` as a program: with GPUs, without, and in JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/json.h"
#include "base/mem.h"
#include "tree.h"

struct world {
    struct tree t;
    struct buf out;
};

static int setup(void **state)
{
    struct world *w = mem_new(struct world);
    char path[160];
    tree_make(&w->t);
    (void)snprintf(path, sizeof(path), "%s/scenario", w->t.root);
    (void)setenv("ARRIERO_TOY_NVML", path, 1);
    (void)setenv("ARRIERO_NVML", getenv("TOY_NVML"), 1);
    (void)unsetenv("CUDA_VISIBLE_DEVICES");
    tree_put(
        &w->t, "scenario",
        "driver 550.54.15\ncuda 12040\n"
        "gpu\nname Toy \033[31mA\nuuid GPU-a\npci 0:1:0\nmemory 24576 0 1024\nutil 37 1\ntemperature 61 90\n"
        "power 120000 450000 450000\nthrottle 20\nprocess 5 10 compute\n"
        "gpu\nname Toy B\nuuid GPU-b\npci 0:2:0\nmemory 8192 0 0\nlost 1\n");
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    buf_release(&w->out);
    tree_remove(&w->t);
    free(w);
    return 0;
}

/* The exit status; stdout is in w->out. */
static int run(struct world *w, const char *arguments)
{
    char command[512], chunk[4096];
    size_t n;
    (void)snprintf(command, sizeof(command), "'%s' %s", getenv("ARRIERO"), arguments);
    FILE *f = popen(command, "re");
    assert_non_null(f);
    buf_clear(&w->out);
    while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
        assert_true(buf_append(&w->out, chunk, n));
    int status = pclose(f);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void says(const struct world *w, const char *part)
{
    if (!strstr(w->out.data, part))
        fail_msg("no \"%s\" in:\n%s", part, w->out.data);
}

static void table(void **state)
{
    struct world *w = *state;
    assert_int_equal(run(w, "gpus"), 0);
    says(w, "CUDA0");
    says(w, "24.0 GiB");
    says(w, "23.0 GiB");
    says(w, "37%");
    says(w, "61 °C");
    says(w, "120/450 W");
    says(w, "slowed by sw_thermal");
    says(w, "lost");
    says(w, "Host: ");
    says(w, "Driver: NVIDIA 550.54.15, CUDA 12.4");
    says(w, "Note: nvidia: CUDA1 (0000:02:00.0): the GPU has fallen off the bus");
    assert_null(strchr(w->out.data, '\033')); /* a name cannot colour the terminal */
}

static void no_gpu(void **state)
{
    struct world *w = *state;
    tree_put(&w->t, "scenario", "init 18\n");
    assert_int_equal(run(w, "gpus"), 0);
    says(w, "no GPU found: models run on the CPU\n");
    says(w, "different versions");
    says(w, "reboot");
}

static void hidden(void **state)
{
    struct world *w = *state;
    (void)setenv("CUDA_VISIBLE_DEVICES", "", 1);
    assert_int_equal(run(w, "gpus"), 0);
    says(w, "no GPU found");
    says(w, "2 of 2 GPUs are hidden by CUDA_VISIBLE_DEVICES");
}

static void json(void **state)
{
    struct world *w = *state;
    struct err err;
    yyjson_doc *doc;
    assert_int_equal(run(w, "gpus --json"), 0);
    assert_int_equal(json_parse(buf_str(&w->out), "output", &doc, &err), RC_OK);
    yyjson_val *root = yyjson_doc_get_root(doc), *gpus = yyjson_obj_get(root, "gpus");
    assert_int_equal(yyjson_arr_size(gpus), 2);
    yyjson_val *a = yyjson_arr_get(gpus, 0), *b = yyjson_arr_get(gpus, 1);
    assert_int_equal(json_u64(a, "memory_used_mb", 0), 1024);
    assert_int_equal(json_u64(a, "temperature_c", 0), 61);
    assert_true(json_bool(b, "lost", false));
    assert_true(yyjson_is_null(yyjson_obj_get(b, "memory_used_mb")));
    assert_true(str_eq_c(json_str(b, "uuid", STR("")), "GPU-b"));
    assert_true(json_u64(yyjson_obj_get(root, "host"), "ram_total_bytes", 0) > 0);
    assert_true(str_eq_c(json_str(root, "cuda_version", STR("")), "12.4"));
    yyjson_doc_free(doc);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(table), T(no_gpu), T(hidden), T(json)};
    return cmocka_run_group_tests_name("hw_command", tests, NULL, NULL);
}
