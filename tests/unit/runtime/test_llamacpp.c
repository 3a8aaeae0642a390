/* The llama.cpp adapter: command lines from plans, capabilities from help texts, sizes and causes from logs
 * that the real server wrote (logs/), and the search for the binary. */
#include "base/buf.h"
#include "os/file.h"
#include "runtime/llamacpp_priv.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char *logs_dir, *model_path; /* from the command line */

/* ---- helpers ---- */

static struct buf read_log(const char *name)
{
    char path[1024];
    struct buf b = {0};
    struct err err;
    snprintf(path, sizeof path, "%s/%s", logs_dir, name);
    if (file_read(path, 0, &b, &err) != RC_OK)
        fail_msg("%s", err.message);
    return b;
}

static const char help_new[] =
    "-c,    --ctx-size N    size\n-fa,   --flash-attn [on|off|auto]   x\n--fit [on|off] x\n--fit-target N\n"
    "-dev,  --device <d>\n--list-devices\n-kvu,  --kv-unified, -no-kvu, --no-kv-unified\n"
    "-ngl, --gpu-layers N exact number, 'auto', or 'all'\n--ui,  --webui, --no-ui, "
    "--no-webui\n--metrics\n--slots, "
    "--no-slots\n--jinja, --no-jinja\n--offline\n-cram, --cache-ram N\n--ctx-checkpoints, --swa-checkpoints "
    "N\n"
    "-ncmoe, --n-cpu-moe N\n-ot, --override-tensor x\n--repack, -nr, --no-repack\n--swa-full\n-lm, "
    "--load-mode M\n--rpc SERVERS\n"
    "--embedding, --embeddings\n--verbosity\n - 4: trace (more info)\n--api-key-file F\n--slot-save-path P\n"
    "--cache-idle-slots, --no-cache-idle-slots\n"
    "-mmdev, --mmproj-device D\n--mmproj-offload, --no-mmproj-offload\n--spec-type T\n--spec-draft-n-max "
    "N\n--spec-draft-n-min N\n"
    "-devd, --device-draft D\n-tb, --threads-batch N\n";
static const char help_old[] =
    "-c, --ctx-size N\n-fa, --flash-attn   enable\n-ngl, --gpu-layers N\n--metrics\n--slots\n"
    "--no-mmap  do not map\n--embedding\n--fit-target N\n";

static void caps_from(struct runtime_caps *caps, const char *help)
{
    *caps = (struct runtime_caps){.flags = llamacpp_flags(str_from(help))};
    snprintf(caps->binary, sizeof caps->binary, "/opt/llama-server");
}

struct fixture {
    struct plan plan;
    struct plan_machine machine;
    struct runtime_job job;
    struct arena arena;
    struct runtime_command command;
};

static void fixture_init(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    f->plan.estimate.params = (struct plan_params){.ctx = 8192,
                                                   .batch = 2048,
                                                   .ubatch = 512,
                                                   .parallel = 4,
                                                   .kv_unified = true,
                                                   .flash_attn = true,
                                                   .type_k = GGML_F16,
                                                   .type_v = GGML_F16,
                                                   .kv_offload = true,
                                                   .repack = true,
                                                   .mmap = true};
    f->plan.estimate.n_parts = 1;
    f->plan.estimate.parts[0] = (struct plan_part){
        .name = "Host", .kind = PLAN_HOST, .prompt_cache_bytes = 512 * MIB, .checkpoints = 8};
    const char *uuids[] = {"GPU-aaaa", "GPU-bbbb"};
    for (size_t i = 0; i < 2; i++) {
        struct plan_device *d = &f->machine.devices[i];
        snprintf(d->name, sizeof d->name, "CUDA%zu", i);
        snprintf(d->uuid, sizeof d->uuid, "%s", uuids[i]);
        d->backend = PLAN_CUDA;
    }
    f->machine.n_devices = 2;
    f->job = (struct runtime_job){.model_path = "/m/a.gguf",
                                  .served_name = "org/a:Q4",
                                  .plan = &f->plan,
                                  .machine = &f->machine,
                                  .host = "127.0.0.1",
                                  .port = 4711};
    f->plan.threads = 6;
}

/* argv joined with spaces, in a static buffer. */
static const char *joined(const struct runtime_command *c)
{
    static char out[4096];
    size_t n = 0;
    for (size_t i = 0; c->argv[i]; i++)
        n += (size_t)snprintf(out + n, sizeof out - n, "%s%s", i ? " " : "", c->argv[i]);
    return out;
}

static const char *env_value(const struct runtime_command *c, const char *name)
{
    const char *found = NULL;
    size_t n = strlen(name);
    for (size_t i = 0; c->env[i]; i++)
        if (strncmp(c->env[i], name, n) == 0 && c->env[i][n] == '=') {
            assert_null(found); /* each name once */
            found = c->env[i] + n + 1;
        }
    return found;
}

static void command(struct fixture *f, const char *help)
{
    struct runtime_caps caps;
    struct err err;
    caps_from(&caps, help);
    const struct runtime_ops *ops = runtime_find(STR("llama-server"));
    assert_non_null(ops);
    if (ops->command(&caps, &f->job, &f->arena, &f->command, &err) != RC_OK)
        fail_msg("%s", err.message);
}

/* ---- command lines ---- */

static void test_cpu_command(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    setenv("LLAMA_ARG_CTX_SIZE", "77", 1);
    setenv("HF_TOKEN", "secret", 1);
    setenv("CUDA_VISIBLE_DEVICES", "3", 1);
    command(&f, help_new);
    assert_string_equal(joined(&f.command), "/opt/llama-server -m /m/a.gguf --alias org/a:Q4 --host "
                                            "127.0.0.1 --port 4711 -c 8192 -np 4 -b 2048 -ub 512 "
                                            "-ctk f16 -ctv f16 -fa on -t 6 -ngl 0 --device none --kv-unified "
                                            "--cache-ram 512 --ctx-checkpoints 8 --fit off "
                                            "--metrics --slots --no-webui --jinja --offline -lv 4");
    assert_string_equal(env_value(&f.command, "CUDA_VISIBLE_DEVICES"), "");
    assert_string_equal(env_value(&f.command, "CUDA_DEVICE_ORDER"), "PCI_BUS_ID");
    assert_null(env_value(&f.command, "LLAMA_ARG_CTX_SIZE"));
    assert_null(env_value(&f.command, "HF_TOKEN"));
    assert_non_null(env_value(&f.command, "PATH"));
    unsetenv("LLAMA_ARG_CTX_SIZE");
    unsetenv("HF_TOKEN");
    unsetenv("CUDA_VISIBLE_DEVICES");
    arena_release(&f.arena);
}

static void test_one_gpu_is_pinned_by_uuid(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    f.plan.n_used = 1;
    f.plan.used[0] = 1;
    f.plan.estimate.params.gpu_layers = PLAN_ALL_LAYERS;
    f.plan.estimate.params.type_k = f.plan.estimate.params.type_v = GGML_Q8_0;
    command(&f, help_new);
    const char *line = joined(&f.command);
    assert_non_null(strstr(line, " -ngl all --device CUDA0 "));
    assert_non_null(strstr(line, " -ctk q8_0 -ctv q8_0 -fa on "));
    assert_null(strstr(line, " -ts "));
    assert_string_equal(env_value(&f.command, "CUDA_VISIBLE_DEVICES"), "GPU-bbbb");
    char name[24];
    assert_string_equal(runtime_child_device(&f.machine, &f.plan, 0, name, sizeof name), "CUDA0");
    arena_release(&f.arena);
}

static void test_workers(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    const char *ids[] = {"10.0.0.1:50052", "10.0.0.2:50052/0", "10.0.0.2:50052/1", "10.0.0.3:50052"};
    f.machine.n_devices = 4;
    for (size_t i = 0; i < 4; i++) {
        plan_device_named(&f.machine.devices[i], STR("RPC0"), MIB, MIB);
        snprintf(f.machine.devices[i].name, sizeof f.machine.devices[i].name, "RPC%zu", i);
        snprintf(f.machine.devices[i].uuid, sizeof f.machine.devices[i].uuid, "%s", ids[i]);
    }
    f.plan.n_used = 2;
    f.plan.used[0] = 2;
    f.plan.used[1] = 3;
    command(&f, help_new);
    /* only the workers in use, and numbered over all of their devices */
    assert_non_null(strstr(joined(&f.command), " --rpc 10.0.0.2:50052,10.0.0.3:50052 "));
    assert_non_null(strstr(joined(&f.command), " --device RPC1,RPC2 "));
    char name[24];
    assert_string_equal(runtime_log_device(&f.machine, &f.plan, 0, name, sizeof name), "10.0.0.2:50052/1");
    assert_string_equal(runtime_log_device(&f.machine, &f.plan, 1, name, sizeof name), "10.0.0.3:50052/0");
    f.plan.n_used = 3;
    f.plan.used[0] = 0;
    f.plan.used[1] = 1;
    f.plan.used[2] = 2;
    arena_release(&f.arena);
    f.arena = (struct arena){0};
    command(&f, help_new);
    assert_non_null(strstr(joined(&f.command), " --rpc 10.0.0.1:50052,10.0.0.2:50052 "));
    assert_non_null(strstr(joined(&f.command), " --device RPC0,RPC1,RPC2 "));
    arena_release(&f.arena);
    assert_string_equal(
        runtime_log_worker(STR("a-rather-long-name.example.org:50052"), STR("0"), name, sizeof name),
        "ame.example.org:50052/0");
}

static void test_two_gpus_in_plan_order(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    f.plan.n_used = 2;
    f.plan.used[0] = 1;
    f.plan.used[1] = 0;
    struct plan_params *p = &f.plan.estimate.params;
    p->gpu_layers = 21;
    p->n_tensor_split = 2;
    p->tensor_split[0] = 13;
    p->tensor_split[1] = 8.5f;
    p->n_cpu_moe = 3;
    p->n_overrides = 2;
    p->kv_unified = false;
    p->kv_offload = p->repack = p->mmap = false;
    p->swa_full = true;
    snprintf(p->overrides[0].pattern, sizeof p->overrides[0].pattern, "blk\\.1\\..*");
    snprintf(p->overrides[0].buffer, sizeof p->overrides[0].buffer, "CPU");
    snprintf(p->overrides[1].pattern, sizeof p->overrides[1].pattern, "x");
    snprintf(p->overrides[1].buffer, sizeof p->overrides[1].buffer, "CUDA0");
    command(&f, help_new);
    assert_non_null(strstr(joined(&f.command),
                           " -ngl 21 --device CUDA0,CUDA1 -ts 13,8.5 --no-kv-unified "
                           "--no-kv-offload --no-repack --swa-full --load-mode none --n-cpu-moe 3 "
                           "-ot blk\\.1\\..*=CPU,x=CUDA0 "));
    assert_string_equal(env_value(&f.command, "CUDA_VISIBLE_DEVICES"), "GPU-bbbb,GPU-aaaa");
    arena_release(&f.arena);
}

static void test_device_without_uuid_is_named(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    snprintf(f.machine.devices[0].name, sizeof f.machine.devices[0].name, "Vulkan0");
    f.machine.devices[0].backend = PLAN_VULKAN;
    f.plan.n_used = 1;
    f.plan.estimate.params.gpu_layers = PLAN_ALL_LAYERS;
    command(&f, help_new);
    assert_non_null(strstr(joined(&f.command), " --device Vulkan0 "));
    assert_string_equal(env_value(&f.command, "CUDA_VISIBLE_DEVICES"), "");
    arena_release(&f.arena);
    fixture_init(&f);
    f.machine.devices[1].uuid[0] = '\0';
    f.plan.n_used = 1;
    f.plan.used[0] = 1;
    setenv("CUDA_VISIBLE_DEVICES", "0,1", 1);
    command(&f, help_new);
    assert_non_null(strstr(joined(&f.command), " --device CUDA1 "));
    assert_string_equal(env_value(&f.command, "CUDA_VISIBLE_DEVICES"), "0,1");
    unsetenv("CUDA_VISIBLE_DEVICES");
    arena_release(&f.arena);
}

static void test_extras_come_last(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    const char *extra[] = {"--temp", "0.2"};
    f.job.extra_args = extra;
    f.job.n_extra_args = 2;
    f.job.embedding = true;
    f.job.mmproj_path = "/m/mm.gguf";
    f.job.slot_save_path = "/kv";
    f.job.api_key_file = "/key";
    command(&f, help_new);
    const char *line = joined(&f.command), *end = " --temp 0.2";
    assert_string_equal(line + strlen(line) - strlen(end), end);
    assert_non_null(strstr(
        line,
        " --embeddings --mmproj /m/mm.gguf --no-mmproj-offload --api-key-file /key --slot-save-path /kv "));
    arena_release(&f.arena);
}

static void test_idle_slots_stay_where_files_are_written_of_them(void **state)
{
    (void)state;
    static const struct {
        uint32_t ctx, parallel;
        bool unified, files, stay;
    } rows[] = {{16384, 4, true, true, true},
                {16380, 4, true, true, false},
                {16384, 4, false, true, false},
                {16384, 4, true, false, false}};
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct fixture f;
        fixture_init(&f);
        f.plan.estimate.params.ctx = rows[i].ctx;
        f.plan.estimate.params.parallel = rows[i].parallel;
        f.plan.estimate.params.kv_unified = rows[i].unified;
        f.job.slot_save_path = rows[i].files ? "/kv" : NULL;
        command(&f, help_new);
        assert_int_equal(strstr(joined(&f.command), " --no-cache-idle-slots") != NULL, rows[i].stay);
        arena_release(&f.arena);
    }
}

static void test_files_beside_the_model(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    struct model a = {.path = "/m/a.lora"}, b = {.path = "/m/b.lora"}, draft = {.path = "/m/draft.gguf"};
    struct plan_extras x;
    plan_extras_default(&x);
    x.adapters[0] = &a;
    x.adapters[1] = &b;
    x.adapter_scale[0] = x.adapter_scale[1] = 1;
    x.n_adapters = 2;
    x.draft = &draft;
    x.draft_tokens = 5;
    x.draft_gpu_layers = 2;
    x.draft_type_k = GGML_Q8_0;
    f.job.extras = &x;
    f.job.mmproj_path = "/m/mm.gguf";
    command(&f, help_new);
    const char *line = joined(&f.command);
    assert_non_null(strstr(line, " --mmproj /m/mm.gguf --no-mmproj-offload "));
    assert_non_null(strstr(line, " --lora /m/a.lora,/m/b.lora "));
    assert_non_null(strstr(line, " --model-draft /m/draft.gguf --spec-type draft-simple --spec-draft-n-max 5 "
                                 "-ngld 2 -ctkd q8_0 -ctvd f16 "));
    x.adapter_scale[1] = 0.5f;
    x.draft_gpu_layers = PLAN_ALL_LAYERS;
    f.plan.n_used = 1;
    f.plan.used[0] = 1;
    command(&f, help_new);
    line = joined(&f.command);
    assert_non_null(strstr(line, " --mmproj /m/mm.gguf --mmproj-device CUDA0 "));
    assert_non_null(strstr(line, " --lora-scaled /m/a.lora:1,/m/b.lora:0.5 "));
    assert_non_null(strstr(line, " -ngld all "));
    x.draft_least = 2;
    x.draft_device = "GPU-bbbb";
    command(&f, help_new);
    assert_non_null(strstr(joined(&f.command), " --spec-draft-n-min 2 --device-draft CUDA0 -ngld all "));
    f.plan.estimate.parts[0].has_projector = true; /* the plan keeps it in RAM */
    command(&f, help_new);
    assert_non_null(strstr(joined(&f.command), " --no-mmproj-offload "));
    arena_release(&f.arena);
}

static void test_threads(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    command(&f, help_new);
    assert_non_null(strstr(joined(&f.command), " -t 6 "));
    assert_null(strstr(joined(&f.command), "--threads-batch")); /* as many as -t by itself */
    f.plan.threads_batch = 6;
    command(&f, help_new);
    assert_null(strstr(joined(&f.command), "--threads-batch"));
    f.plan.threads_batch = 12;
    command(&f, help_new);
    assert_non_null(strstr(joined(&f.command), " -t 6 --threads-batch 12 "));
    arena_release(&f.arena);
}

/* A plan that gives the draft a device of its own is no plan for a build that cannot. */
static void test_draft_device_needs_its_option(void **state)
{
    (void)state;
    struct fixture f;
    struct runtime_caps caps;
    struct err err;
    fixture_init(&f);
    caps_from(&caps, help_old);
    struct model draft = {.path = "/m/draft.gguf"};
    struct plan_extras x;
    plan_extras_default(&x);
    x.draft = &draft;
    x.draft_device = "CUDA1";
    f.job.extras = &x;
    f.plan.estimate.params.repack = true;
    assert_int_equal(runtime_find(STR("llama-server"))->command(&caps, &f.job, &f.arena, &f.command, &err),
                     RC_UNSUPPORTED);
    assert_non_null(strstr(err.message, "--device-draft"));
    arena_release(&f.arena);
}

/* Without pooling /v1/embeddings answers 400. */
static void test_embeddings_are_pooled(void **state)
{
    (void)state;
    struct fixture f;
    struct model *plain;
    struct err err;
    auto_free char *help = mem_printf("%s--pooling {none,mean,cls,last,rank}\n", help_new);
    fixture_init(&f);
    if (model_open(model_path, &plain, &err) != RC_OK)
        fail_msg("%s", err.message);
    f.job.model = plain;
    command(&f, help);
    assert_null(strstr(joined(&f.command), "--pooling"));
    f.job.embedding = true;
    command(&f, help);
    assert_non_null(strstr(joined(&f.command), " --embeddings --pooling last "));
    arena_release(&f.arena);
    model_unref(plain);
}

static void test_older_build_gets_only_what_it_knows(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    f.plan.n_used = 1;
    f.plan.estimate.params.gpu_layers = PLAN_ALL_LAYERS;
    f.plan.estimate.params.mmap = false;
    f.job.embedding = true;
    command(&f, help_old);
    assert_string_equal(
        joined(&f.command),
        "/opt/llama-server -m /m/a.gguf --alias org/a:Q4 --host 127.0.0.1 --port 4711 -c 8192 -np 4 "
        "-b 2048 -ub 512 -ctk f16 -ctv f16 -fa -t 6 -ngl 999 --no-mmap --metrics --slots --embedding");
    arena_release(&f.arena);
}

static void test_refusals(void **state)
{
    (void)state;
    struct fixture f;
    struct runtime_caps caps;
    struct err err;
    const struct runtime_ops *ops = runtime_find(STR("llama-server"));
    fixture_init(&f);
    caps_from(&caps, help_old);
    f.plan.estimate.params.n_cpu_moe = 2;
    assert_int_equal(ops->command(&caps, &f.job, &f.arena, &f.command, &err), RC_UNSUPPORTED);
    assert_non_null(strstr(err.message, "--n-cpu-moe"));
    assert_true(err.hint[0]);
    f.plan.estimate.params.n_cpu_moe = 0;
    f.plan.estimate.params.type_k = 9999;
    assert_int_equal(ops->command(&caps, &f.job, &f.arena, &f.command, &err), RC_INVALID);
    f.plan.estimate.params.type_k = GGML_F16;
    const char *many[400];
    for (size_t i = 0; i < 400; i++)
        many[i] = "x";
    f.job.extra_args = many;
    f.job.n_extra_args = 400;
    assert_int_equal(ops->command(&caps, &f.job, &f.arena, &f.command, &err), RC_LIMIT);
    struct arena tight = {.cap_bytes = 64};
    f.job.n_extra_args = 0;
    assert_int_equal(ops->command(&caps, &f.job, &tight, &f.command, &err), RC_NOMEM);
    assert_null(f.command.argv); /* outputs untouched */
    arena_release(&tight);
    arena_release(&f.arena);
}

/* ---- capabilities ---- */

static void test_flags_are_whole_words(void **state)
{
    (void)state;
    uint64_t old = llamacpp_flags(str_from(help_old)), new = llamacpp_flags(str_from(help_new));
    assert_false(old & LLC_FIT); /* --fit-target is there */
    assert_false(old & LLC_FLASH_VALUE);
    assert_true(old & LLC_NO_MMAP);
    assert_true(new &LLC_FIT);
    assert_true(new &LLC_NO_WEBUI);
    assert_true(new &LLC_VERBOSITY_TRACE);
    assert_false(new &LLC_NO_MMAP);
    assert_int_equal(llamacpp_flags(STR("")), 0);
}

static void test_versions(void **state)
{
    (void)state;
    struct runtime_caps c = {0};
    struct buf v = read_log("version.txt");
    llamacpp_version(buf_str(&v), &c);
    buf_release(&v);
    assert_string_equal(c.version, "0.7.0 (build 11669)");
    assert_int_equal(c.build, 11669);
    c = (struct runtime_caps){0};
    llamacpp_version(STR("x\nversion: 5620 (abc123)\nbuilt with"), &c);
    assert_string_equal(c.version, "5620 (abc123)");
    assert_int_equal(c.build, 5620);
    c = (struct runtime_caps){0};
    llamacpp_version(STR("version: 99999999999999999999999999 ()"), &c);
    assert_int_equal(c.build, 0);
    llamacpp_version(STR("nothing"), &c);
    llamacpp_version(STR("version: "), &c);
    assert_int_equal(c.build, 0);
}

static void test_device_list(void **state)
{
    (void)state;
    struct runtime_caps c = {0};
    llamacpp_devices(STR("junk: 1 (2 MiB, 3 MiB free)\nAvailable devices:\n"
                         "  CUDA0: NVIDIA GeForce RTX 4090 (24080 MiB, 23500 MiB free)\n"
                         "  Vulkan0: llvmpipe (LLVM 15.0.6, 256 bits) (2048 MiB, 2047 MiB free)\n"
                         "  RPC0: 127.0.0.1:50997 (24105 MiB, 24105 MiB free)\n"
                         "  bad (x MiB, 1 MiB free)\n  bad: (1 MiB, y MiB free)\n: \n"
                         "  huge: h (99999999999999999999 MiB, 1 MiB free)"),
                     &c);
    assert_int_equal(c.n_devices, 3);
    assert_string_equal(c.devices[0].name, "CUDA0");
    assert_string_equal(c.devices[0].description, "NVIDIA GeForce RTX 4090");
    assert_true(c.devices[0].total_bytes == 24080 * MIB && c.devices[0].free_bytes == 23500 * MIB);
    assert_string_equal(c.devices[1].description, "llvmpipe (LLVM 15.0.6, 256 bits)");
    assert_true(c.devices[1].free_bytes == 2047 * MIB);
    assert_string_equal(c.devices[2].name, "RPC0");
    c.n_devices = 0;
    llamacpp_devices(STR("Available devices:\n  (none)\n"), &c);
    assert_int_equal(c.n_devices, 0);
}

static void make_program(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0700), 0);
}

static void test_probe_asks_the_binary(void **state)
{
    (void)state;
    char dir[] = "/tmp/arriero-probe-XXXXXX", path[128];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/llama-server", dir);
    struct runtime_caps caps = {.build = 7};
    struct err err;
    make_program(
        path,
        "#!/bin/sh\ncase $1 in\n--version) echo 'version: 6000 (abc)';;\n--help) echo '-c, --ctx-size N'; "
        "echo '--list-devices x'; echo '--fit [on|off]';;\n--list-devices) echo 'Available devices:'; "
        "echo '  CUDA0: A (10 MiB, 9 MiB free)'; test \"$CUDA_DEVICE_ORDER\" = PCI_BUS_ID;;\nesac\n");
    if (llamacpp_probe(path, &caps, &err) != RC_OK)
        fail_msg("%s", err.message);
    assert_string_equal(caps.binary, path);
    assert_int_equal(caps.build, 6000);
    assert_int_equal(caps.n_devices, 1);
    assert_true(caps.flags == LLC_FIT);
    make_program(path, "#!/bin/sh\necho 'x: error while loading shared libraries: libggml.so.0'; exit 127\n");
    caps.build = 7;
    assert_int_equal(llamacpp_probe(path, &caps, &err), RC_BACKEND);
    assert_non_null(strstr(err.message, "libggml.so.0"));
    assert_true(err.hint[0]);
    make_program(path, "#!/bin/sh\necho hello\n");
    assert_int_equal(llamacpp_probe(path, &caps, &err), RC_UNSUPPORTED);
    assert_int_equal(caps.build, 7);
    unlink(path);
    assert_int_equal(llamacpp_probe(path, &caps, &err), RC_NOT_FOUND);
    rmdir(dir);
}

static void test_find_order(void **state)
{
    (void)state;
    char dir[] = "/tmp/arriero-find-XXXXXX", path[512], given[160], sub[256];
    struct err err;
    assert_non_null(mkdtemp(dir));
    auto_free char *old_path = mem_strdup(getenv("PATH"));
    setenv("PATH", dir, 1);
    setenv("XDG_DATA_HOME", dir, 1);
    unsetenv("ARRIERO_LLAMA_SERVER");
    assert_int_equal(runtime_find_llama_server(NULL, path, sizeof path, &err), RC_NOT_FOUND);
    assert_true(err.hint[0]);
    const char *versions[] = {"0.9.0", "0.10.0", "0.8.1"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(sub, sizeof sub, "%s/arriero/llama.cpp/%s", dir, versions[i]);
        assert_int_equal(file_mkdirs(sub, 0700, &err), RC_OK);
        strcat(sub, "/llama-server");
        make_program(sub, "#!/bin/sh\n");
    }
    assert_int_equal(runtime_find_llama_server(NULL, path, sizeof path, &err), RC_OK);
    assert_non_null(strstr(path, "/0.10.0/llama-server"));
    snprintf(given, sizeof given, "%s/llama-server", dir);
    make_program(given, "#!/bin/sh\n");
    assert_int_equal(runtime_find_llama_server("", path, sizeof path, &err), RC_OK);
    assert_string_equal(path, given);
    setenv("ARRIERO_LLAMA_SERVER", sub, 1);
    assert_int_equal(runtime_find_llama_server(NULL, path, sizeof path, &err), RC_OK);
    assert_string_equal(path, sub);
    setenv("ARRIERO_LLAMA_SERVER", "/nowhere/x", 1);
    assert_int_equal(runtime_find_llama_server(NULL, path, sizeof path, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nowhere/x"));
    assert_int_equal(runtime_find_llama_server("/nowhere/y", path, sizeof path, &err), RC_NOT_FOUND);
    assert_int_equal(runtime_find_llama_server(given, path, sizeof path, &err), RC_OK);
    unsetenv("ARRIERO_LLAMA_SERVER");
    unsetenv("XDG_DATA_HOME");
    setenv("PATH", old_path, 1);
    char line[300];
    snprintf(line, sizeof line, "rm -r %s", dir);
    assert_int_equal(system(line), 0);
}

/* ---- logs ---- */

static double feed(const char *name, struct runtime_measured *m)
{
    struct buf b = read_log(name);
    struct str rest = buf_str(&b);
    double top = -1;
    while (rest.n > 0) {
        double p = llamacpp_log_line(str_cut(&rest, '\n'), m);
        assert_true(p <= 1 && (p >= 0 || p == -1.0));
        top = p > top ? p : top;
    }
    buf_release(&b);
    return top;
}

static void test_sizes_of_a_cpu_load(void **state)
{
    (void)state;
    struct runtime_measured m = {0};
    assert_true(feed("ready.log", &m) == 1.0);
    assert_int_equal(m.n_parts, 1);
    assert_string_equal(m.parts[0].name, "Host");
    assert_int_equal(m.parts[0].kind, PLAN_HOST);
    assert_int_equal(m.parts[0].model_bytes, MIB / 2);
    assert_int_equal(m.parts[0].context_bytes, MIB);
    assert_int_equal(m.parts[0].compute_bytes, 3292529); /* 3.14 MiB */
    assert_int_equal(m.parts[0].overhead_bytes, 10486);  /* 0.01 MiB of output */
}

static void test_sizes_over_rpc(void **state)
{
    (void)state;
    struct runtime_measured m = {0};
    assert_true(feed("rpc.log", &m) == 1.0);
    assert_int_equal(m.n_parts, 2);
    assert_string_equal(m.parts[0].name, "Host");
    assert_string_equal(m.parts[1].name, "127.0.0.1:50997/0"); /* RPC0 is the first of each worker */
    assert_int_equal(m.parts[1].kind, PLAN_REMOTE);
    assert_int_equal(m.parts[1].context_bytes, MIB);
}

static void test_sizes_of_cuda_lines(void **state)
{
    (void)state;
    struct runtime_measured m = {0};
    const char *lines[] = {
        "load_tensors:        CUDA0 model buffer size =  4096.00 MiB",
        "load_tensors:   CPU_REPACK model buffer size =   100.00 MiB",
        "load_tensors:   CPU_Mapped model buffer size =    50.00 MiB",
        "llama_kv_cache:      CUDA0 KV buffer size =   512.00 MiB",
        "llama_kv_cache:      CUDA0 KV buffer size =   128.00 MiB",
        "llama_memory_recurrent:      CUDA0 RS buffer size =   1.00 MiB",
        "sched_reserve: reserving ...",
        "sched_reserve:      CUDA0 compute buffer size =   300.00 MiB",
        "sched_reserve: reserving ...",
        "sched_reserve:      CUDA0 compute buffer size =   200.00 MiB",
        "sched_reserve:  CUDA_Host compute buffer size =    20.00 MiB",
        "sched_reserve:        CPU compute buffer size =     5.00 MiB",
        "x: CUDA1 model buffer size = nan MiB",
        "x: CUDA1 model buffer size = -1 MiB",
        "x: CUDA1 model buffer size = 1e300 MiB",
        "x: CUDA1 model buffer size = 12 GiB",
        " model buffer size =",
        "",
    };
    for (size_t i = 0; i < TABLE_COUNT(lines); i++)
        assert_true(llamacpp_log_line(str_from(lines[i]), &m) == -1.0);
    assert_int_equal(m.n_parts, 2);
    assert_string_equal(m.parts[0].name, "CUDA0");
    assert_true(m.parts[0].model_bytes == 4096 * MIB && m.parts[0].context_bytes == 641 * MIB &&
                m.parts[0].compute_bytes == 200 * MIB);
    assert_true(m.parts[1].model_bytes == 150 * MIB && m.parts[1].repack_bytes == 100 * MIB &&
                m.parts[1].compute_bytes == 25 * MIB);
    /* a draft has a context of its own, beside the model's */
    const char *draft[] = {"llama_adapter_lora_init_impl: CPU_Mapped LoRA buffer size =     3.00 MiB",
                           "load_tensors:        CUDA0 model buffer size =    64.00 MiB",
                           "llama_context: constructing llama_context",
                           "sched_reserve: reserving ...",
                           "sched_reserve:      CUDA0 compute buffer size =    40.00 MiB",
                           "sched_reserve: reserving ...",
                           "sched_reserve:      CUDA0 compute buffer size =    30.00 MiB"};
    for (size_t i = 0; i < TABLE_COUNT(draft); i++)
        (void)llamacpp_log_line(str_from(draft[i]), &m);
    assert_true(m.parts[0].model_bytes == 4160 * MIB && m.parts[0].compute_bytes == 230 * MIB);
    assert_true(m.parts[1].model_bytes == 153 * MIB && m.parts[1].compute_bytes == 25 * MIB);
    assert_true(llamacpp_log_line(STR("...................................................."), &m) > 0.4);
    assert_true(llamacpp_log_line(STR("... no"), &m) == -1.0);
}

static void test_causes_in_real_logs(void **state)
{
    (void)state;
    static const struct {
        const char *log;
        enum runtime_failure failure;
        const char *message;
    } rows[] = {
        {"badmodel.log", RUNTIME_FAIL_MODEL, "invalid magic characters"},
        {"missing.log", RUNTIME_FAIL_MODEL, "nope.gguf"},
        {"cut.log", RUNTIME_FAIL_MODEL, "corrupted or incomplete"},
        {"arch.log", RUNTIME_FAIL_MODEL, "frobnitz"},
        {"badarg.log", RUNTIME_FAIL_ARGUMENT, "--frobnicate"},
        {"badval.log", RUNTIME_FAIL_ARGUMENT, "q9_9"},
        {"vcache.log", RUNTIME_FAIL_ARGUMENT, "flash_attn"},
        {"port.log", RUNTIME_FAIL_PORT, "port: 18999"},
        {"mem.log", RUNTIME_FAIL_MEMORY, "std::bad_alloc"},
        {"rpcmem.log", RUNTIME_FAIL_MEMORY, "2048000000"},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct buf b = read_log(rows[i].log);
        struct err err;
        assert_int_equal(llamacpp_classify(1 << 8, buf_str(&b), &err), rows[i].failure);
        if (!strstr(err.message, rows[i].message))
            fail_msg("%s: %s", rows[i].log, err.message);
        assert_null(strstr(err.message, "0.00."));
        assert_true(err.hint[0]);
        buf_release(&b);
    }
}

static void test_causes_by_status(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(llamacpp_classify(SIGKILL, STR("failed to load model"), &err), RUNTIME_FAIL_MEMORY);
    assert_int_equal(llamacpp_classify(SIGILL, STR(""), &err), RUNTIME_FAIL_EXEC);
    assert_int_equal(llamacpp_classify(SIGSEGV, STR("a\nlast words\n\n"), &err), RUNTIME_FAIL_SIGNAL);
    assert_non_null(strstr(err.message, "SEGV: last words"));
    assert_int_equal(
        llamacpp_classify(
            SIGABRT, STR("allocating 4480.00 MiB on device 3: cudaMalloc failed: out of memory\nx"), &err),
        RUNTIME_FAIL_MEMORY);
    assert_int_equal(err.code, RC_NOMEM);
    static const char *const exhausted[] = {
        "libggml.so.0: failed to map segment from shared object",
        "terminate called\n  what():  Resource temporarily unavailable",
        "CUDA error: out of memory",
        "cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED",
        "what(): hipErrorOutOfMemory",
        "vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
        "UR error: UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY",
    };
    for (size_t i = 0; i < TABLE_COUNT(exhausted); i++) {
        assert_int_equal(llamacpp_classify(SIGABRT, str_from(exhausted[i]), &err), RUNTIME_FAIL_MEMORY);
        assert_true(err.hint[0] && err.code == RC_NOMEM);
    }
    assert_int_equal(llamacpp_classify(3 << 8, STR("bye"), &err), RUNTIME_FAIL_EXIT);
    assert_non_null(strstr(err.message, "status 3: bye"));
    assert_int_equal(llamacpp_classify(127 << 8, STR(""), &err), RUNTIME_FAIL_EXEC);
    assert_int_equal(llamacpp_classify(0, STR(""), NULL), RUNTIME_FAIL_EXIT);
    assert_string_equal(runtime_failure_word(RUNTIME_FAIL_PORT), "port");
    assert_string_equal(runtime_failure_word((enum runtime_failure)99), "unknown");
}

static void test_every_adapter_is_complete(void **state)
{
    (void)state;
    size_t n;
    const struct runtime_ops *const *all = runtime_all(&n);
    assert_true(n > 0);
    for (size_t i = 0; i < n; i++) {
        assert_ptr_equal(runtime_find(str_from(all[i]->name)), all[i]);
        assert_true(all[i]->probe && all[i]->command && all[i]->log_line && all[i]->classify);
        assert_int_equal(all[i]->health_path[0], '/');
    }
    assert_null(runtime_find(STR("no such")));
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    logs_dir = argv[1];
    model_path = argv[2];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu_command),
        cmocka_unit_test(test_one_gpu_is_pinned_by_uuid),
        cmocka_unit_test(test_workers),
        cmocka_unit_test(test_two_gpus_in_plan_order),
        cmocka_unit_test(test_device_without_uuid_is_named),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_draft_device_needs_its_option),
        cmocka_unit_test(test_extras_come_last),
        cmocka_unit_test(test_idle_slots_stay_where_files_are_written_of_them),
        cmocka_unit_test(test_files_beside_the_model),
        cmocka_unit_test(test_embeddings_are_pooled),
        cmocka_unit_test(test_older_build_gets_only_what_it_knows),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_flags_are_whole_words),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_device_list),
        cmocka_unit_test(test_probe_asks_the_binary),
        cmocka_unit_test(test_find_order),
        cmocka_unit_test(test_sizes_of_a_cpu_load),
        cmocka_unit_test(test_sizes_over_rpc),
        cmocka_unit_test(test_sizes_of_cuda_lines),
        cmocka_unit_test(test_causes_in_real_logs),
        cmocka_unit_test(test_causes_by_status),
        cmocka_unit_test(test_every_adapter_is_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
