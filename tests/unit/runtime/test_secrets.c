/* What children must not get and people must not see. */
#include "runtime/llamacpp_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const secrets[] = {"ARRIERO_API_KEYS",   "HF_TOKEN",        "HUGGING_FACE_HUB_TOKEN",
                                      "OPENAI_API_KEY",     "X_PASSWORD",      "AWS_SECRET_ACCESS_KEY",
                                      "LLAMA_ARG_CTX_SIZE", "LLAMA_API_KEY",   "MTMD_BACKEND_DEVICE",
                                      "PROVIDER_API_KEYS",  "MY_CLIENT_SECRET"};

static int set_secrets(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_COUNT(secrets); i++)
        setenv(secrets[i], "s3cret", 1);
    setenv("TOKENIZERS_PARALLELISM", "1", 1); /* no secret, though it sounds a little like one */
    return 0;
}

static int unset_secrets(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_COUNT(secrets); i++)
        unsetenv(secrets[i]);
    unsetenv("TOKENIZERS_PARALLELISM");
    return 0;
}

static bool has(const char *const *env, const char *start)
{
    bool found = false;
    for (size_t i = 0; env[i]; i++)
        found |= strncmp(env[i], start, strlen(start)) == 0;
    return found;
}

static void test_environment(void **state)
{
    (void)state;
    const char *env[LLAMACPP_ENV_MAX];
    setenv("CUDA_VISIBLE_DEVICES", "3", 1);
    assert_true(llamacpp_env(NULL, env, TABLE_COUNT(env)));
    for (size_t i = 0; i < TABLE_COUNT(secrets); i++)
        if (has(env, secrets[i]))
            fail_msg("%s is handed down", secrets[i]);
    assert_true(has(env, "PATH=") && has(env, "TOKENIZERS_PARALLELISM=1"));
    assert_true(has(env, "CUDA_VISIBLE_DEVICES=3") && has(env, "CUDA_DEVICE_ORDER=PCI_BUS_ID"));
    assert_true(llamacpp_env("CUDA_VISIBLE_DEVICES=GPU-a", env, TABLE_COUNT(env)));
    assert_true(has(env, "CUDA_VISIBLE_DEVICES=GPU-a") && !has(env, "CUDA_VISIBLE_DEVICES=3"));
    unsetenv("CUDA_VISIBLE_DEVICES");
    assert_false(llamacpp_env(NULL, env, 2)); /* no room is an error, not a cut environment */
}

static void test_a_probe_gets_no_secrets(void **state)
{
    (void)state;
    char dir[] = "/tmp/arriero-secrets-XXXXXX", path[128];
    struct runtime_caps caps;
    struct err err;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/llama-server", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("#!/bin/sh\nif env | grep s3cret; then exit 1; fi\n"
          "case $1 in\n--version) echo 'version: 6000 (abc)';;\n--help) echo '-c, --ctx-size N';;\nesac\n",
          f);
    fclose(f);
    assert_int_equal(chmod(path, 0700), 0);
    if (llamacpp_probe(path, &caps, &err) != RC_OK)
        fail_msg("%s", err.message);
    unlink(path);
    rmdir(dir);
}

static void test_shown_arguments(void **state)
{
    (void)state;
    const char *args[] = {"llama-server", "--api-key", "s3cret",    "--api-key=s3cret", "--hf-token",
                          "s3cret",       "-hft",      "s3cret",    "--hf-token=x",     "--api-key-file",
                          "/etc/key",     "--api-key", "--api-key", "--alias",          "--api-keys=1"};
    const char *shown[] = {"llama-server",
                           "--api-key",
                           "***",
                           "--api-key=***",
                           "--hf-token",
                           "***",
                           "-hft",
                           "***",
                           "--hf-token=***",
                           "--api-key-file",
                           "/etc/key",
                           "--api-key",
                           "***",
                           "***",
                           "--api-keys=1"};
    for (size_t i = 0; i < TABLE_COUNT(args); i++) {
        auto_free char *text = runtime_shown_arg(args, i);
        assert_string_equal(text, shown[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_environment, set_secrets, unset_secrets),
        cmocka_unit_test_setup_teardown(test_a_probe_gets_no_secrets, set_secrets, unset_secrets),
        cmocka_unit_test(test_shown_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
