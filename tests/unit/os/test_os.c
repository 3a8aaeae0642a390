/* Tests of src/os: files, children, captured programs. */
#include "os/file.h"
#include "os/pagecache.h"
#include "os/run.h"
#include "os/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/arriero-os-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    const char *const argv[] = {"rm", "-rf", dir, NULL};
    struct buf out = {0};
    int status = 1;
    enum rc rc = run_capture(argv, NULL, 10000, 1000, &out, &status, NULL);
    buf_release(&out);
    return rc == RC_OK ? status : -1;
}

static void test_write_then_read(void **state)
{
    (void)state;
    char path[128];
    struct err err;
    struct buf b = {0};
    snprintf(path, sizeof path, "%s/a/b", dir);
    assert_int_equal(file_mkdirs(path, 0700, &err), RC_OK);
    assert_int_equal(file_mkdirs(path, 0700, &err), RC_OK);
    snprintf(path, sizeof path, "%s/a/b/c", dir);
    assert_int_equal(file_write_atomic(path, STR("hello"), 0600, &err), RC_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(file_read(path, 0, &b, &err), RC_OK);
    assert_string_equal(b.data, "hello");
    assert_int_equal(file_read(path, 4, &b, &err), RC_LIMIT);
    assert_string_equal(b.data, "hello"); /* untouched on failure */
    assert_int_equal(file_mkdirs(path, 0700, &err), RC_INVALID);
    buf_release(&b);
}

static void test_missing_file_is_named(void **state)
{
    (void)state;
    struct err err;
    struct buf b = {0};
    assert_int_equal(file_read("/nonexistent/x", 0, &b, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nonexistent/x"));
    assert_int_equal(err.sys_errno, ENOENT);
    buf_release(&b);
}

static void test_find_program(void **state)
{
    (void)state;
    char path[256];
    assert_true(file_find_program("sh", path, sizeof path));
    assert_true(path[0] == '/');
    assert_false(file_find_program("no-such-program-at-all", path, sizeof path));
    assert_false(file_find_program("/tmp", path, sizeof path));
}

static void test_capture(void **state)
{
    (void)state;
    const char *const argv[] = {"sh", "-c", "echo out; echo err >&2; exit 3", NULL};
    struct buf out = {0};
    struct err err;
    int status = 0;
    assert_int_equal(run_capture(argv, NULL, 10000, 1000, &out, &status, &err), RC_OK);
    assert_int_equal(WEXITSTATUS(status), 3);
    assert_string_equal(out.data, "out\nerr\n");
    buf_release(&out);
}

static void test_capture_is_cut_and_ends_in_time(void **state)
{
    (void)state;
    const char *const much[] = {"sh", "-c", "yes | head -c 100000", NULL};
    struct buf out = {0};
    struct err err;
    int status = 0;
    assert_int_equal(run_capture(much, NULL, 10000, 1000, &out, &status, &err), RC_OK);
    assert_int_equal(out.n, 1000);
    const char *const hangs[] = {"sleep", "1000", NULL};
    assert_int_equal(run_capture(hangs, NULL, 50, 1000, &out, &status, &err), RC_TIMEOUT);
    const char *const none[] = {"no-such-program-at-all", NULL};
    assert_int_equal(run_capture(none, NULL, 50, 1000, &out, &status, &err), RC_NOT_FOUND);
    buf_release(&out);
}

static void test_spawn_exec_error(void **state)
{
    (void)state;
    const char *const argv[] = {"/nonexistent/program", NULL};
    const char *const env[] = {NULL};
    struct spawn_options opt = {.argv = argv, .env = env};
    struct spawn_child c;
    struct err err;
    assert_int_equal(spawn_start(&opt, &c, &err), RC_NOT_FOUND);
    assert_true(err.hint[0]);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no zombie is left */
}

static void test_spawn_is_apart(void **state)
{
    (void)state;
    int leaked = open("/dev/null", O_RDONLY); /* without close-on-exec: must not reach the child */
    const char *const argv[] = {
        "/bin/sh", "-c", "ls /proc/self/fd | wc -l; cat /proc/self/oom_score_adj; exec sleep 1000", NULL};
    const char *const env[] = {"PATH=/bin:/usr/bin", NULL};
    struct spawn_options opt = {.argv = argv, .env = env, .death_signal = SIGKILL, .oom_score_adj = 300};
    struct spawn_child c;
    struct err err;
    assert_int_equal(spawn_start(&opt, &c, &err), RC_OK);
    assert_int_equal(getpgid(c.pid), c.pid);
    char text[64] = "";
    size_t n = 0;
    while (n < sizeof text - 1 &&
           (n == 0 || !strchr(strchr(text, '\n') ? strchr(text, '\n') + 1 : text + n, '\n'))) {
        struct pollfd p = {.fd = c.output, .events = POLLIN};
        assert_true(poll(&p, 1, 10000) == 1);
        ssize_t r = read(c.output, text + n, sizeof text - 1 - n);
        assert_true(r > 0);
        n += (size_t)r;
        text[n] = '\0';
    }
    assert_string_equal(text, "4\n300\n"); /* 0, 1, 2 and ls's own directory */
    assert_int_equal(kill(-c.pid, SIGTERM), 0);
    if (c.pidfd >= 0) {
        struct pollfd p = {.fd = c.pidfd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 10000), 1);
    }
    int status;
    assert_int_equal(waitpid(c.pid, &status, 0), c.pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    close(leaked);
    close(c.output);
    if (c.pidfd >= 0)
        close(c.pidfd);
}

static void test_child_dies_with_its_parent(void **state)
{
    (void)state;
    int report[2];
    assert_int_equal(pipe(report), 0);
    pid_t middle = fork();
    assert_true(middle >= 0);
    if (middle == 0) { /* starts a child, tells its pid, and is killed */
        const char *const argv[] = {"/bin/sleep", "1000", NULL};
        const char *const env[] = {NULL};
        struct spawn_options opt = {.argv = argv, .env = env, .death_signal = SIGKILL};
        struct spawn_child c;
        if (spawn_start(&opt, &c, NULL) != RC_OK)
            _exit(1);
        if (write(report[1], &c.pid, sizeof c.pid) < 0)
            _exit(1);
        pause();
        _exit(0);
    }
    pid_t grandchild;
    assert_int_equal(read(report[0], &grandchild, sizeof grandchild), sizeof grandchild);
    char stat_path[64];
    snprintf(stat_path, sizeof stat_path, "/proc/%d", (int)grandchild);
    assert_true(file_exists(stat_path));
    kill(middle, SIGKILL);
    waitpid(middle, NULL, 0);
    for (int i = 0; i < 1000; i++) { /* gone, or a zombie that init has still to reap */
        char stat_file[80];
        struct buf b = {0};
        snprintf(stat_file, sizeof stat_file, "%s/stat", stat_path);
        bool gone = file_read(stat_file, 4096, &b, NULL) != RC_OK || strstr(b.data, ") Z");
        buf_release(&b);
        if (gone)
            break;
        poll(NULL, 0, 10);
        assert_true(i < 999);
    }
    close(report[0]);
    close(report[1]);
}

static void test_xdg(void **state)
{
    (void)state;
    char path[256];
    setenv("XDG_DATA_HOME", "/d", 1);
    file_dir(FILE_DIR_DATA, path, sizeof path);
    assert_string_equal(path, "/d/arriero");
    setenv("XDG_DATA_HOME", "relative", 1); /* the specification: must be absolute */
    setenv("HOME", "/h", 1);
    file_dir(FILE_DIR_DATA, path, sizeof path);
    assert_string_equal(path, "/h/.local/share/arriero");
}

static void test_pages_in_memory(void **state)
{
    (void)state;
    char path[96];
    uint64_t bytes = 0, size = 0;
    struct err err;
    static char text[3 * 65536 + 5];
    memset(text, 'x', sizeof text);
    snprintf(path, sizeof path, "%s/pages", dir);
    assert_int_equal(file_write_atomic(path, (struct str){text, sizeof text}, 0600, &err), RC_OK);
    assert_int_equal(pagecache_resident(path, &bytes, &size, &err), RC_OK);
    assert_int_equal(size, sizeof text);
    assert_int_equal(bytes, sizeof text); /* it was just written */
    assert_int_equal(pagecache_resident(path, &bytes, &size, &err), RC_OK);
    assert_int_equal(size, 2 * sizeof text); /* sums over the files of a model */
    snprintf(path, sizeof path, "%s/none", dir);
    assert_int_equal(pagecache_resident(path, &bytes, &size, &err), RC_IO);
    assert_int_equal(size, 2 * sizeof text);
}

/* Of a large file windows are looked at: 64 of 4 MiB each. */
static void test_share_in_memory(void **state)
{
    (void)state;
    struct err err;
    char path[96];
    double share = -1;
    size_t n = (size_t)4 << 20;
    char *zeros = calloc(1, n);
    assert_non_null(zeros);
    snprintf(path, sizeof path, "%s/large", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)1 << 30), 0);
    assert_int_equal(pagecache_share(path, &share, &err), RC_OK);
    assert_true(share == 0);
    assert_int_equal(write(fd, zeros, n), (ssize_t)n);
    assert_int_equal(pagecache_share(path, &share, &err), RC_OK);
    assert_true(share == 1.0 / 64);
    assert_int_equal(ftruncate(fd, (off_t)n), 0);
    assert_int_equal(pagecache_share(path, &share, &err), RC_OK);
    assert_true(share == 1);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pagecache_share(path, &share, &err), RC_OK);
    assert_true(share == 1); /* nothing is left to read */
    close(fd);
    unlink(path);
    free(zeros);
    share = 0.5;
    assert_int_equal(pagecache_share(path, &share, &err), RC_IO);
    assert_true(share == 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_in_memory),
        cmocka_unit_test(test_share_in_memory),
        cmocka_unit_test(test_write_then_read),
        cmocka_unit_test(test_missing_file_is_named),
        cmocka_unit_test(test_find_program),
        cmocka_unit_test(test_capture),
        cmocka_unit_test(test_capture_is_cut_and_ends_in_time),
        cmocka_unit_test(test_spawn_exec_error),
        cmocka_unit_test(test_spawn_is_apart),
        cmocka_unit_test(test_child_dies_with_its_parent),
        cmocka_unit_test(test_xdg),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
