/* Unit tests of the service manager's protocol: what is sent, where, and that nothing is without a manager.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "daemon/notify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int listen_at(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    size_t n = strlen(path);
    memcpy(sa.sun_path, path, n);
    if (path[0] == '@')
        sa.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(
        bind(fd, (struct sockaddr *)&sa, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)), 0);
    return fd;
}

static void messages_reach_the_socket(void **state)
{
    (void)state;
    char dir[] = "/tmp/test-notify-XXXXXX", path[64], name[64], text[256];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/s", dir);
    snprintf(name, sizeof name, "@arriero-test-%ld", (long)getpid());
    const char *const places[] = {path, name};
    for (size_t i = 0; i < 2; i++) {
        int fd = listen_at(places[i]);
        setenv("NOTIFY_SOCKET", places[i], 1);
        assert_true(notify_send("READY=1\nSTATUS=%d models", 7));
        ssize_t n = recv(fd, text, sizeof text, MSG_DONTWAIT);
        assert_int_equal(n, 23);
        assert_memory_equal(text, "READY=1\nSTATUS=7 models", 23);
        assert_true(notify_reloading());
        n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
        assert_true(n > 0);
        text[n] = '\0';
        assert_int_equal(strncmp(text, "RELOADING=1\nMONOTONIC_USEC=", 27), 0);
        close(fd);
    }
    unlink(path);
    rmdir(dir);
}

static void a_unit_that_spares_children_is_known(void **state)
{
    (void)state;
    char pid[32];
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    unsetenv("ARRIERO_KILL_MODE");
    setenv("INVOCATION_ID", "0123", 1);
    setenv("SYSTEMD_EXEC_PID", pid, 1);
    assert_false(notify_unit_spares_children());
    setenv("ARRIERO_KILL_MODE", "mixed", 1);
    assert_false(notify_unit_spares_children());
    setenv("ARRIERO_KILL_MODE", "process", 1);
    assert_true(notify_unit_spares_children());
    setenv("SYSTEMD_EXEC_PID", "1", 1); /* somebody's shell below the unit */
    assert_false(notify_unit_spares_children());
    setenv("SYSTEMD_EXEC_PID", "x", 1);
    assert_false(notify_unit_spares_children());
    unsetenv("SYSTEMD_EXEC_PID"); /* before systemd 248 */
    assert_true(notify_unit_spares_children());
    unsetenv("INVOCATION_ID");
    assert_false(notify_unit_spares_children());
    unsetenv("ARRIERO_KILL_MODE");
}

static void without_a_manager_nothing_happens(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "relative", "/nowhere/at/all", "@", "/"};
    unsetenv("NOTIFY_SOCKET");
    assert_false(notify_send("READY=1"));
    for (size_t i = 0; i < 5; i++) {
        setenv("NOTIFY_SOCKET", bad[i], 1);
        assert_false(notify_send("READY=1"));
    }
    char too_long[300];
    memset(too_long, 'x', sizeof too_long - 1);
    too_long[0] = '/';
    too_long[sizeof too_long - 1] = '\0';
    setenv("NOTIFY_SOCKET", too_long, 1);
    assert_false(notify_send("READY=1"));
    unsetenv("NOTIFY_SOCKET");
}

static void the_watchdog_is_half_of_what_is_asked(void **state)
{
    (void)state;
    char pid[32];
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    assert_int_equal(notify_watchdog_ms(), 0);
    setenv("WATCHDOG_USEC", "30000000", 1);
    assert_int_equal(notify_watchdog_ms(), 15000);
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    setenv("WATCHDOG_PID", pid, 1);
    assert_int_equal(notify_watchdog_ms(), 15000);
    setenv("WATCHDOG_PID", "1", 1);
    assert_int_equal(notify_watchdog_ms(), 0);
    setenv("WATCHDOG_PID", pid, 1);
    setenv("WATCHDOG_USEC", "soon", 1);
    assert_int_equal(notify_watchdog_ms(), 0);
}

static void the_journal_is_recognised(void **state)
{
    (void)state;
    struct stat st;
    char text[64];
    unsetenv("JOURNAL_STREAM");
    assert_false(notify_stderr_is_journal());
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    snprintf(text, sizeof text, "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", text, 1);
    assert_true(notify_stderr_is_journal());
    setenv("JOURNAL_STREAM", "1:2", 1);
    assert_false(notify_stderr_is_journal());
    setenv("JOURNAL_STREAM", "x", 1);
    assert_false(notify_stderr_is_journal());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_reach_the_socket),
        cmocka_unit_test(without_a_manager_nothing_happens),
        cmocka_unit_test(the_watchdog_is_half_of_what_is_asked),
        cmocka_unit_test(the_journal_is_recognised),
        cmocka_unit_test(a_unit_that_spares_children_is_known),
    };
    return cmocka_run_group_tests_name("daemon_notify", tests, NULL, NULL);
}
