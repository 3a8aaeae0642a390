/* The launcher "exec" with real children: lines, tail, log file, status, signals to the group, closing, and
 * nothing left behind (no zombie, no descriptor, no handle). */
#include "base/mem.h"
#include "launch/launch.h"
#include "launch/output.h"
#include "os/file.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    uv_loop_t loop;
    const struct launch_ops *ops;
    struct launch_job *job;
    struct buf lines; /* each followed by '|' */
    size_t n_lines, longest;
    int exited, status, closed;
    bool close_at_exit;
    const char *signal_at_line; /* when this line comes, the job gets SIGTERM */
    size_t fds_before;
};

static size_t count_fds(void)
{
    size_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void on_closed(void *arg)
{
    struct fixture *f = arg;
    f->closed++;
    f->job = NULL;
}

static void on_line(void *arg, struct str line)
{
    struct fixture *f = arg;
    assert_int_equal(f->exited, 0);
    f->n_lines++;
    f->longest = line.n > f->longest ? line.n : f->longest;
    if (f->lines.n < 4096) {
        buf_put_str(&f->lines, line);
        buf_puts(&f->lines, "|");
    }
    if (f->signal_at_line && str_eq_c(line, f->signal_at_line))
        f->ops->signal(f->job, SIGTERM);
}

static void on_exited(void *arg, int wait_status)
{
    struct fixture *f = arg;
    f->exited++;
    f->status = wait_status;
    assert_int_equal(f->ops->pid(f->job), 0);
    f->ops->signal(f->job, SIGTERM); /* no-op after the end */
    if (f->close_at_exit)
        f->ops->close(f->job, on_closed, f);
}

static const struct launch_events events = {.line = on_line, .exited = on_exited};

static int setup(void **state)
{
    struct fixture *f = mem_new(struct fixture);
    f->fds_before = count_fds();
    uv_loop_init(&f->loop);
    f->ops = launch_find(STR("exec"));
    assert_non_null(f->ops);
    f->close_at_exit = true;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0); /* no handle is left */
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    buf_release(&f->lines);
    free(f);
    return 0;
}

static enum rc start(struct fixture *f, const char *script, const char *log_path, size_t tail,
                     struct err *err)
{
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    const char *env[] = {"PATH=/usr/bin:/bin", "GREETING=hola", NULL};
    struct launch_spec spec = {.argv = argv, .env = env, .log_path = log_path, .log_tail_bytes = tail};
    return f->ops->start(&f->loop, &spec, &events, f, &f->job, err);
}

static void must_start(struct fixture *f, const char *script, const char *log_path, size_t tail)
{
    struct err err;
    if (start(f, script, log_path, tail, &err) != RC_OK)
        fail_msg("%s", err.message);
}

static void test_lines_and_status(void **state)
{
    struct fixture *f = *state;
    must_start(f, "echo one; echo two >&2; printf 'cr\\r\\n\\n'; echo $GREETING; printf no-newline; exit 7",
               NULL, 0);
    assert_true(f->ops->pid(f->job) > 0);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_string_equal(f->lines.data, "one|two|cr||hola|no-newline|");
    assert_int_equal(f->exited, 1);
    assert_int_equal(f->closed, 1);
    assert_true(WIFEXITED(f->status) && WEXITSTATUS(f->status) == 7);
}

static void test_missing_program(void **state)
{
    struct fixture *f = *state;
    const char *argv[] = {"/nowhere/llama-server", NULL}, *env[] = {NULL}, *none[] = {NULL};
    struct launch_spec spec = {.argv = argv, .env = env};
    struct err err;
    assert_int_equal(f->ops->start(&f->loop, &spec, &events, f, &f->job, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nowhere/llama-server"));
    assert_null(f->job);
    spec.argv = none;
    assert_int_equal(f->ops->start(&f->loop, &spec, &events, f, &f->job, &err), RC_INVALID);
}

static void test_signal_reaches_the_group(void **state)
{
    struct fixture *f = *state;
    f->signal_at_line = "ready";
    /* The grandchild would keep the pipe open for a minute. */
    must_start(f, "sleep 60 & echo ready; wait", NULL, 0);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_true(WIFSIGNALED(f->status) && WTERMSIG(f->status) == SIGTERM);
}

static void test_leftovers_die_with_the_leader(void **state)
{
    struct fixture *f = *state;
    must_start(f, "sleep 60 & echo pid $!; exit 0", NULL, 0);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(f->exited, 1);
    long pid = strtol(f->lines.data + 4, NULL, 10);
    assert_true(pid > 1);
    if (getenv("VALGRIND_LACKS")) /* valgrind 3.19 knows no pidfd_open */
        skip();
    /* gone, or killed and about to die: the kernel tells when */
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_true(fd >= 0 || errno == ESRCH);
    assert_true(fd < 0 || poll(&p, 1, 30000) == 1);
    if (fd >= 0)
        close(fd);
}

static void test_close_kills_a_running_job(void **state)
{
    struct fixture *f = *state;
    must_start(f, "trap '' TERM; echo up; sleep 60", NULL, 0);
    pid_t pid = f->ops->pid(f->job);
    while (f->n_lines == 0)
        uv_run(&f->loop, UV_RUN_ONCE);
    f->ops->close(f->job, on_closed, f);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(f->closed, 1);
    assert_int_equal(f->exited, 0);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(errno, ESRCH);
}

static void on_heard(uv_poll_t *h, int status, int happened)
{
    (void)status;
    (void)happened;
    (*(int *)h->data)++;
    uv_poll_stop(h);
}

/* A descriptor opened after the job's end may get a number that the job had: closing the job must not touch
 * it. */
static void test_close_leaves_new_descriptors_alone(void **state)
{
    struct fixture *f = *state;
    f->close_at_exit = false;
    must_start(f, "echo over", NULL, 0);
    while (!f->exited)
        uv_run(&f->loop, UV_RUN_ONCE);
    int fds[2], heard = 0;
    assert_int_equal(pipe(fds), 0);
    uv_poll_t poll_handle = {.data = &heard};
    assert_int_equal(uv_poll_init(&f->loop, &poll_handle, fds[0]), 0);
    poll_handle.data = &heard;
    assert_int_equal(uv_poll_start(&poll_handle, UV_READABLE, on_heard), 0);
    uv_run(&f->loop, UV_RUN_NOWAIT); /* now the loop watches it */
    f->ops->close(f->job, on_closed, f);
    while (!f->closed)
        uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(write(fds[1], "x", 1), 1);
    for (int i = 0; i < 10 && !heard; i++)
        uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_int_equal(heard, 1);
    uv_close((uv_handle_t *)&poll_handle, NULL);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    close(fds[0]);
    close(fds[1]);
}

static void test_close_without_callback(void **state)
{
    struct fixture *f = *state;
    must_start(f, "exec sleep 60", NULL, 0);
    f->ops->close(f->job, NULL, NULL);
}

static void test_long_lines_are_cut(void **state)
{
    struct fixture *f = *state;
    must_start(f, "head -c 100000 /dev/zero | tr '\\0' x; echo; echo after", NULL, 0);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(f->n_lines, 2);
    assert_int_equal(f->longest, OUTPUT_LINE_MAX);
}

static void test_tail_is_bounded(void **state)
{
    struct fixture *f = *state;
    f->close_at_exit = false;
    must_start(f, "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done", NULL, 1000);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(f->n_lines, 5000);
    struct str tail = f->ops->log_tail(f->job);
    assert_true(tail.n <= 1000 && tail.n > 900);
    assert_true(str_starts(tail, "line 4"));
    assert_true(str_ends(tail, "line 4998\nline 4999\n"));
    f->ops->close(f->job, on_closed, f);
}

static void test_log_file_is_bounded_and_rotated(void **state)
{
    struct fixture *f = *state;
    char dir[] = "/tmp/arriero-launch-XXXXXX", path[64], old[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.log", dir);
    snprintf(old, sizeof old, "%s/a.log.1", dir);
    struct buf b = {0};
    for (int run = 0; run < 2; run++) { /* the second run keeps the first one's file */
        f->exited = 0;
        must_start(f, run ? "echo second" : "echo first", path, 0);
        uv_run(&f->loop, UV_RUN_DEFAULT);
    }
    assert_int_equal(file_read(path, 0, &b, NULL), RC_OK);
    assert_string_equal(b.data, "second\n");
    buf_clear(&b);
    assert_int_equal(file_read(old, 0, &b, NULL), RC_OK);
    assert_string_equal(b.data, "first\n");
    buf_release(&b);
    f->exited = 0;
    must_start(f, "head -c 9000000 /dev/zero | tr '\\0' '\\n'", path, 0);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    struct stat now, before;
    assert_int_equal(stat(path, &now), 0);
    assert_int_equal(stat(old, &before), 0);
    assert_true(now.st_size <= OUTPUT_FILE_MAX && before.st_size <= OUTPUT_FILE_MAX);
    assert_int_equal(now.st_mode & 0777, 0600);
    unlink(path);
    unlink(old);
    rmdir(dir);
}

static void test_a_bad_log_path_does_not_matter(void **state)
{
    struct fixture *f = *state;
    must_start(f, "echo fine", "/nowhere/dir/a.log", 0);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_string_equal(f->lines.data, "fine|");
}

static void test_child_has_only_its_own_descriptors(void **state)
{
    struct fixture *f = *state;
    int extra = dup(1); /* without close-on-exec */
    must_start(f, "ls /proc/self/fd | tr '\\n' ' '; cat; cut -d ' ' -f 5 /proc/$$/stat; echo $$", NULL, 0);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    close(extra);
    assert_true(str_starts(buf_str(&f->lines), "0 1 2 3 ")); /* 3 is ls's own; then its group and itself */
    char want[80];
    long pid = strtol(f->lines.data + strlen("0 1 2 3 "), NULL, 10);
    snprintf(want, sizeof want, "0 1 2 3 %ld|%ld|", pid, pid);
    assert_string_equal(f->lines.data, want);
}

static void test_many_jobs_leak_nothing(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 20; i++) {
        must_start(f, i % 2 ? "exec sleep 60" : "echo x", NULL, 0);
        if (i % 2)
            f->ops->close(f->job, on_closed, f);
        f->exited = 0;
        uv_run(&f->loop, UV_RUN_DEFAULT);
    }
    assert_int_equal(f->closed, 20);
    size_t loop_fds = 0; /* the loop itself holds some; a second loop tells how many */
    uv_loop_t other;
    size_t before = count_fds();
    uv_loop_init(&other);
    loop_fds = count_fds() - before;
    uv_loop_close(&other);
    assert_int_equal(count_fds(), f->fds_before + loop_fds);
}

static void test_unknown_launcher(void **state)
{
    (void)state;
    assert_null(launch_find(STR("no such")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lines_and_status, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_program, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_leaves_new_descriptors_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_signal_reaches_the_group, setup, teardown),
        cmocka_unit_test_setup_teardown(test_leftovers_die_with_the_leader, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_kills_a_running_job, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_without_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_lines_are_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tail_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_log_file_is_bounded_and_rotated, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_bad_log_path_does_not_matter, setup, teardown),
        cmocka_unit_test_setup_teardown(test_child_has_only_its_own_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_jobs_leak_nothing, setup, teardown),
        cmocka_unit_test(test_unknown_launcher),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
