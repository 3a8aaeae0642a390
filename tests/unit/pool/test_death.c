/* Why a process ended: a row for each way. */
#include "pool/death.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void test_rows(void **state)
{
    (void)state;
    static const struct {
        int status;
        enum runtime_failure told;
        enum oom_verdict oom;
        enum runtime_failure failure;
        const char *said; /* NULL = the message stays */
    } rows[] = {
        {SIGKILL, RUNTIME_FAIL_MEMORY, OOM_NAMED, RUNTIME_FAIL_MEMORY, "names the process"},
        {SIGKILL, RUNTIME_FAIL_MEMORY, OOM_GROUP, RUNTIME_FAIL_MEMORY, "control group"},
        {SIGKILL, RUNTIME_FAIL_MEMORY, OOM_SOMEONE, RUNTIME_FAIL_MEMORY, "most likely"},
        {SIGKILL, RUNTIME_FAIL_MEMORY, OOM_NONE, RUNTIME_FAIL_SIGNAL, "not by the kernel"},
        {SIGKILL, RUNTIME_FAIL_MEMORY, OOM_UNKNOWN, RUNTIME_FAIL_MEMORY, NULL},
        {SIGSEGV, RUNTIME_FAIL_SIGNAL, OOM_NONE, RUNTIME_FAIL_SIGNAL, NULL},
        {SIGSEGV, RUNTIME_FAIL_SIGNAL, OOM_GROUP, RUNTIME_FAIL_SIGNAL, NULL},
        {SIGABRT, RUNTIME_FAIL_MEMORY, OOM_NONE, RUNTIME_FAIL_MEMORY, NULL}, /* its log told */
        {SIGTERM, RUNTIME_FAIL_SIGNAL, OOM_NONE, RUNTIME_FAIL_EXIT, "arriero did not"},
        {0, RUNTIME_FAIL_EXIT, OOM_NONE, RUNTIME_FAIL_EXIT, "arriero did not"},
        {0, RUNTIME_FAIL_EXIT, OOM_GROUP, RUNTIME_FAIL_EXIT, "arriero did not"},
        {1 << 8, RUNTIME_FAIL_EXIT, OOM_GROUP, RUNTIME_FAIL_EXIT, NULL},
        {1 << 8, RUNTIME_FAIL_ARGUMENT, OOM_NONE, RUNTIME_FAIL_ARGUMENT, NULL},
        {1 << 8, RUNTIME_FAIL_MODEL, OOM_UNKNOWN, RUNTIME_FAIL_MODEL, NULL},
        {0, RUNTIME_FAIL_MEMORY, OOM_NONE, RUNTIME_FAIL_MEMORY, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err cause;
        const struct death d = {rows[i].status, rows[i].told, rows[i].oom};
        (void)err_set(&cause, RC_BACKEND, "the server ended somehow");
        err_hint(&cause, "as it was");
        if (death_explain(&d, &cause) != rows[i].failure)
            fail_msg("row %zu: %s", i, cause.message);
        assert_ptr_equal(strstr(cause.message, "the server ended somehow"), cause.message);
        if (rows[i].said && (!strstr(cause.message, rows[i].said) || strcmp(cause.hint, "as it was") == 0))
            fail_msg("row %zu: %s (%s)", i, cause.message, cause.hint);
        if (!rows[i].said)
            assert_string_equal(cause.hint, "as it was");
        assert_true(cause.hint[0]);
        assert_int_equal(cause.code == RC_NOMEM, rows[i].said && rows[i].failure == RUNTIME_FAIL_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
