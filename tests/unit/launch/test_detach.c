/* Jobs that may outlive us: known before they run, followed in their log, left and taken over. */
#include "base/mem.h"
#include "launch/launch.h"
#include "launch/output.h"
#include "os/file.h"
#include "os/process.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    uv_loop_t loop;
    const struct launch_ops *ops;
    struct launch_job *job;
    char dir[64], log[96];
    struct buf lines;
    int exited, status, closed;
    size_t n_lines;
    pid_t known;
    bool refuse, stay; /* stay: it is not closed at its end */
};

static void on_closed(void *arg)
{
    struct fixture *f = arg;
    f->closed++;
    f->job = NULL;
}

static void on_line(void *arg, struct str line)
{
    struct fixture *f = arg;
    f->n_lines++;
    if (f->lines.n > 4096)
        return;
    buf_put_str(&f->lines, line);
    buf_puts(&f->lines, "|");
}

static void on_exited(void *arg, int wait_status)
{
    struct fixture *f = arg;
    f->exited++;
    f->status = wait_status;
    if (!f->stay)
        f->ops->close(f->job, on_closed, f);
}

static const struct launch_events events = {.line = on_line, .exited = on_exited};

static enum rc on_known(void *arg, pid_t pid, struct err *err)
{
    struct fixture *f = arg;
    char path[96];
    snprintf(path, sizeof path, "%s/ran", f->dir);
    assert_false(file_exists(path)); /* it waits */
    f->known = pid;
    return f->refuse ? err_set(err, RC_IO, "no room to write it down") : RC_OK;
}

static int setup(void **state)
{
    struct fixture *f = mem_new(struct fixture);
    snprintf(f->dir, sizeof f->dir, "/tmp/arr-detach-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->log, sizeof f->log, "%s/log", f->dir);
    uv_loop_init(&f->loop);
    f->ops = launch_find(STR("exec"));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"log", "log.1", "ran"};
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    for (size_t i = 0; i < TABLE_COUNT(names); i++) {
        char path[96];
        snprintf(path, sizeof path, "%s/%s", f->dir, names[i]);
        (void)!unlink(path);
    }
    assert_int_equal(rmdir(f->dir), 0);
    buf_release(&f->lines);
    free(f);
    return 0;
}

static enum rc start(struct fixture *f, const char *script, struct err *err)
{
    char ran[96];
    snprintf(ran, sizeof ran, "RAN=%s/ran", f->dir);
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    const char *env[] = {"PATH=/usr/bin:/bin", ran, NULL};
    struct launch_spec spec = {
        .argv = argv, .env = env, .log_path = f->log, .detach = true, .known = on_known};
    return f->ops->start(&f->loop, &spec, &events, f, &f->job, err);
}

static void must_start(struct fixture *f, const char *script)
{
    struct err err;
    if (start(f, script, &err) != RC_OK)
        fail_msg("%s", err.message);
    assert_int_equal(f->known, f->ops->pid(f->job));
}

static void on_guard(uv_timer_t *t)
{
    (void)t;
}

/* A timer's callback may bring the line in the first half of a turn, whose second half waits for events. */
static void until_lines(struct fixture *f, size_t n)
{
    uv_timer_t guard;
    uv_timer_init(&f->loop, &guard);
    uv_timer_start(&guard, on_guard, 20, 20);
    while (f->n_lines < n)
        uv_run(&f->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&guard, NULL);
    uv_run(&f->loop, UV_RUN_NOWAIT);
}

static void test_its_lines_come_from_its_log(void **state)
{
    struct fixture *f = *state;
    must_start(f, ": >$RAN; echo one; echo two >&2; printf end; exit 3");
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_string_equal(f->lines.data, "one|two|end|");
    assert_true(WIFEXITED(f->status) && WEXITSTATUS(f->status) == 3);
    assert_int_equal(f->closed, 1);
}

static void test_it_leads_a_session(void **state)
{
    struct fixture *f = *state;
    must_start(f, "echo up; exec sleep 60");
    pid_t pid = f->ops->pid(f->job);
    assert_int_equal(getpgid(pid), pid);
    assert_int_equal(getsid(pid), pid);
    until_lines(f, 1);
    f->ops->signal(f->job, SIGTERM);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_true(WIFSIGNALED(f->status));
}

static void test_what_is_not_known_does_not_run(void **state)
{
    struct fixture *f = *state;
    struct err err;
    char path[96];
    f->refuse = true;
    assert_int_equal(start(f, ": >$RAN", &err), RC_IO);
    assert_string_equal(err.message, "no room to write it down");
    assert_null(f->job);
    snprintf(path, sizeof path, "%s/ran", f->dir);
    assert_false(file_exists(path));
    const char *argv[] = {"/nowhere/server", NULL}, *env[] = {NULL};
    struct launch_spec spec = {.argv = argv, .env = env, .detach = true, .known = on_known};
    assert_int_equal(f->ops->start(&f->loop, &spec, &events, f, &f->job, &err), RC_INVALID); /* no log */
    spec.log_path = f->log;
    f->refuse = false;
    assert_int_equal(f->ops->start(&f->loop, &spec, &events, f, &f->job, &err), RC_NOT_FOUND);
    spec.log_path = "/nowhere/at/all/log";
    assert_int_equal(f->ops->start(&f->loop, &spec, &events, f, &f->job, &err), RC_IO);
}

static int death_report;

static enum rc tell_and_die(void *arg, pid_t pid, struct err *err)
{
    (void)arg;
    (void)err;
    if (write(death_report, &pid, sizeof pid) != sizeof pid)
        _exit(1);
    kill(getpid(), SIGKILL);
    return RC_OK;
}

/* We may be killed at the worst moment: between the fork and the row. */
static void test_it_does_not_run_when_we_die_before_it_is_known(void **state)
{
    struct fixture *f = *state;
    int report[2];
    char path[96];
    pid_t child = 0;
    assert_int_equal(pipe(report), 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* so that the orphan's end can be seen */
    pid_t middle = fork();
    assert_true(middle >= 0);
    if (middle == 0) {
        char ran[96];
        snprintf(ran, sizeof ran, "RAN=%s/ran", f->dir);
        const char *argv[] = {"/bin/sh", "-c", ": >$RAN", NULL}, *env[] = {ran, NULL};
        struct launch_spec spec = {
            .argv = argv, .env = env, .log_path = f->log, .detach = true, .known = tell_and_die};
        struct launch_job *job;
        death_report = report[1];
        _exit(f->ops->start(&f->loop, &spec, &events, f, &job, NULL) == RC_OK ? 0 : 1);
    }
    assert_int_equal(read(report[0], &child, sizeof child), sizeof child);
    int status;
    assert_int_equal(waitpid(middle, &status, 0), middle);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 127);
    snprintf(path, sizeof path, "%s/ran", f->dir);
    assert_false(file_exists(path));
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    close(report[0]);
    close(report[1]);
}

static void leave(struct fixture *f, struct launch_found *found)
{
    *found = (struct launch_found){.pid = f->known, .log_path = f->log};
    assert_true(process_start_ticks(found->pid, &found->start_ticks));
    assert_true(process_is_ours(found->pid));
    f->ops->leave(f->job, on_closed, f);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(f->closed, 1);
    assert_int_equal(kill(found->pid, 0), 0); /* it goes on */
    buf_clear(&f->lines);
    f->n_lines = 0;
}

static void adopt(struct fixture *f, const struct launch_found *found)
{
    struct err err;
    if (f->ops->adopt(&f->loop, found, &events, f, &f->job, &err) != RC_OK)
        fail_msg("%s", err.message);
    assert_int_equal(f->ops->pid(f->job), found->pid);
}

/* It says what it is told: SIGUSR1 makes it go on. */
#define TALKER                                                                                               \
    "trap 'echo again' USR1; trap 'echo bye; exit 0' TERM; echo first; while :; do sleep 60 & wait; done"

static void test_it_is_left_and_taken_over(void **state)
{
    struct fixture *f = *state;
    struct launch_found found;
    must_start(f, TALKER);
    until_lines(f, 1);
    leave(f, &found);
    kill(found.pid, SIGUSR1); /* written while nobody reads */
    struct buf text = {0};
    while (!strstr(text.data ? text.data : "", "again")) {
        buf_clear(&text);
        assert_int_equal(file_read(f->log, 0, &text, NULL), RC_OK);
    }
    buf_release(&text);
    adopt(f, &found);
    struct str tail = f->ops->log_tail(f->job);
    assert_true(str_find(tail, STR("first\n")) >= 0 && str_find(tail, STR("again\n")) >= 0);
    assert_int_equal(f->n_lines, 0); /* what it wrote before is no news */
    f->ops->signal(f->job, SIGUSR1);
    until_lines(f, 1);
    f->ops->signal(f->job, SIGTERM);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_string_equal(f->lines.data, "again|bye|");
    assert_int_equal(f->exited, 1);
    assert_int_equal(f->closed, 2);
    assert_int_equal(waitpid(found.pid, NULL, 0), found.pid); /* to us it was a child all the while */
}

static void test_its_lines_are_told_again_when_asked_for(void **state)
{
    struct fixture *f = *state;
    struct launch_found found;
    must_start(f, TALKER);
    until_lines(f, 1);
    leave(f, &found);
    found.replay = true;
    adopt(f, &found);
    until_lines(f, 1);
    assert_string_equal(f->lines.data, "first|");
    f->ops->close(f->job, on_closed, f); /* kills it */
    uv_run(&f->loop, UV_RUN_DEFAULT);
    int status;
    assert_int_equal(waitpid(found.pid, &status, 0), found.pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(f->exited, 0);
}

static void test_another_ones_number_is_not_taken_over(void **state)
{
    struct fixture *f = *state;
    struct launch_found found;
    struct err err;
    must_start(f, TALKER);
    until_lines(f, 1);
    leave(f, &found);
    found.start_ticks++;
    assert_int_equal(f->ops->adopt(&f->loop, &found, &events, f, &f->job, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.message, "another one"));
    assert_int_equal(kill(found.pid, 0), 0);
    found.start_ticks--;
    kill(found.pid, SIGKILL);
    assert_int_equal(waitpid(found.pid, NULL, 0), found.pid);
    assert_int_equal(f->ops->adopt(&f->loop, &found, &events, f, &f->job, &err), RC_NOT_FOUND);
}

static void test_a_log_that_is_gone_does_not_matter(void **state)
{
    struct fixture *f = *state;
    struct launch_found found;
    must_start(f, TALKER);
    until_lines(f, 1);
    leave(f, &found);
    assert_int_equal(unlink(f->log), 0);
    adopt(f, &found);
    f->ops->signal(f->job, SIGTERM);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(f->status, LAUNCH_STATUS_UNKNOWN);
    assert_int_equal(waitpid(found.pid, NULL, 0), found.pid);
}

static void test_its_log_is_kept_small(void **state)
{
    struct fixture *f = *state;
    char old[100];
    struct stat st;
    must_start(f, "yes 0123456789012345678901234567890123456789 | head -c 11000000; echo; echo end");
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(f->status, 0);
    assert_int_equal(stat(f->log, &st), 0);
    assert_true(st.st_size <= OUTPUT_FILE_MAX);
    snprintf(old, sizeof old, "%s.1", f->log);
    assert_int_equal(stat(old, &st), 0);
    assert_true(st.st_size > OUTPUT_FILE_MAX);
}

int main(void)
{
#define DETACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        DETACH(test_its_lines_come_from_its_log),
        DETACH(test_it_leads_a_session),
        DETACH(test_what_is_not_known_does_not_run),
        DETACH(test_it_does_not_run_when_we_die_before_it_is_known),
        DETACH(test_it_is_left_and_taken_over),
        DETACH(test_its_lines_are_told_again_when_asked_for),
        DETACH(test_another_ones_number_is_not_taken_over),
        DETACH(test_a_log_that_is_gone_does_not_matter),
        DETACH(test_its_log_is_kept_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
