/* Unit tests of conversations that outlive their instance, with servers that are asked about their slots. */
#include "fake.h"

#include "pool/kv_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the children's slots do. */
struct server {
    struct runtime_slot slots[4];
    size_t n;
    int save_status, restore_status; /* 0 = 200 */
    unsigned lists, saves, restores;
    uint32_t restored_slot;
    bool mute; /* it never answers to restore */
};

static char first[2000], later[2600];

static void answer_with(struct buf *out, int status, const char *text)
{
    buf_printf(out, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n\r\n%s", status, strlen(text), text);
}

static void do_save(struct fake *f, struct server *v, const char *file, struct buf *answer)
{
    static const char content[] = "a state of a conversation";
    char path[256], text[64];
    v->saves++;
    snprintf(path, sizeof path, "%s/%s", f->kv_dir, file);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs(content, out);
    fclose(out);
    snprintf(text, sizeof text, "%u %zu", v->slots[0].tokens, sizeof content - 1);
    answer_with(answer, v->save_status ? v->save_status : 200, v->save_status ? "no" : text);
}

static bool serve(struct fake *f, struct str request, struct buf *answer)
{
    struct server *v = f->serve_arg;
    if (str_starts(request, "GET /list ")) {
        struct buf text = {0};
        buf_puts(&text, "");
        for (size_t i = 0; i < v->n; i++)
            buf_printf(&text, "%u %d %llu %u\n", v->slots[i].id, v->slots[i].busy,
                       (unsigned long long)v->slots[i].request, v->slots[i].tokens);
        v->lists++;
        answer_with(answer, 200, text.data);
        buf_release(&text);
        return true;
    }
    struct str head = request;
    ptrdiff_t end = str_find(head, STR("\r\n\r\n"));
    if (end < 0)
        return false;
    char file[64];
    snprintf(file, sizeof file, "%.*s", (int)(head.n - (size_t)end - 4), head.p + end + 4);
    if (str_starts(request, "POST /save/")) {
        do_save(f, v, file, answer);
        return true;
    }
    if (!str_starts(request, "POST /restore/"))
        return false;
    v->restores++;
    v->restored_slot = (uint32_t)(request.p[14] - '0');
    if (!v->mute)
        answer_with(answer, v->restore_status ? v->restore_status : 200, "550 25");
    return true;
}

static int setup(void **state)
{
    int r = fake_setup_kv(state);
    struct fake *f = *state;
    struct server *v = mem_new(struct server);
    *v = (struct server){.n = 2, .slots = {{0, false, 7, 550}, {1, false, 0, 0}}};
    f->serve = serve;
    f->serve_arg = v;
    for (size_t i = 0; i < sizeof later; i++)
        later[i] = (char)('a' + i * 7919 % 26);
    memcpy(first, later, sizeof first);
    first[sizeof first - 1] = ']';
    return r;
}

static int teardown(void **state)
{
    struct fake *f = *state;
    void *server = f->serve_arg;
    int r = fake_teardown(state);
    free(server);
    return r;
}

static void say(struct fake *f, struct str prompt, struct answer *a)
{
    const struct pool_request r = {.model = STR("a"), .band = LINE_NORMAL, .prompt = prompt};
    ask_as(f, &r, a);
}

static void answered(struct answer *a, uint32_t prompt, uint32_t answer, uint32_t cached)
{
    a->lease.prompt_tokens = prompt;
    a->lease.answer_tokens = answer;
    a->lease.cached_tokens = cached;
    give_back(a, false);
}

static bool is_gone(struct fake *f, void *arg)
{
    return !instance_of(f, arg) && f->pool->n_work == 0;
}

static void unload(struct fake *f, bool force)
{
    pool_unload(f->pool, STR("a"), force, NULL, NULL);
    fake_run_until(f, is_gone, (void *)(uintptr_t) "a");
    fake_settle(f);
}

static void talk_and_unload(struct fake *f)
{
    struct answer a;
    say(f, (struct str){first, sizeof first}, &a);
    must_get(&a);
    answered(&a, 500, 50, 0);
    unload(f, false);
}

static struct pool_counters counters(struct fake *f)
{
    struct pool_counters c;
    pool_counters(f->pool, &c);
    return c;
}

static void test_it_goes_on_after_a_swap(void **state)
{
    struct fake *f = *state;
    struct server *v = f->serve_arg;
    struct answer a;
    talk_and_unload(f);
    assert_true(decided(f, "kv_saved a"));
    assert_int_equal(v->saves, 1);
    assert_int_equal(counters(f).kv_files, 1);
    assert_int_equal(counters(f).kv_bytes, 25);
    v->slots[0] = (struct runtime_slot){.id = 0};
    v->slots[1].request = 3; /* a used one: the other is taken */
    say(f, (struct str){later, sizeof later}, &a);
    must_get(&a);
    assert_true(decided(f, "kv_restored a"));
    assert_int_equal(v->restores, 1);
    assert_int_equal(v->restored_slot, 0);
    answered(&a, 700, 20, 545);
    assert_true(counters(f).kv_hit_tokens > 400);
    assert_int_equal(counters(f).kv_failures, 0);
    /* the instance has it now: nothing is read back again */
    say(f, (struct str){later, sizeof later}, &a);
    assert_int_equal(a.first, POOL_GRANTED);
    answered(&a, 700, 20, 700);
    assert_int_equal(v->restores, 1);
}

static void test_a_restart_knows_it(void **state)
{
    struct fake *f = *state;
    struct server *v = f->serve_arg;
    struct answer a;
    say(f, (struct str){first, sizeof first}, &a);
    must_get(&a);
    answered(&a, 500, 50, 0);
    fake_restart(f); /* the daemon ends without hurry */
    assert_int_equal(v->saves, 1);
    assert_int_equal(counters(f).kv_files, 1);
    say(f, (struct str){later, sizeof later}, &a);
    must_get(&a);
    assert_int_equal(v->restores, 1);
    answered(&a, 700, 20, 545);
}

static void test_no_help_twice_switches_it_off(void **state)
{
    struct fake *f = *state;
    struct server *v = f->serve_arg;
    struct answer a;
    for (int i = 0; i < 2; i++) {
        v->slots[0].tokens = 550;
        talk_and_unload(f);
        say(f, (struct str){later, sizeof later}, &a);
        must_get(&a);
        answered(&a, 700, 20, 3);
        unload(f, true);
    }
    assert_int_equal(v->restores, 2);
    assert_int_equal(times_decided(f, "kv_off a"), 1);
    unsigned saves = v->saves;
    talk_and_unload(f);
    assert_int_equal(v->saves, saves);
    say(f, (struct str){later, sizeof later}, &a);
    must_get(&a);
    assert_int_equal(v->restores, 2);
    answered(&a, 700, 20, 0);
}

static void damage(struct fake *f)
{
    DIR *d = opendir(f->kv_dir);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));) {
        if (!str_ends(str_from(e->d_name), ".kv"))
            continue;
        int fd = openat(dirfd(d), e->d_name, O_WRONLY);
        assert_int_equal(pwrite(fd, "!", 1, 20), 1);
        close(fd);
    }
    closedir(d);
}

static void test_a_damaged_file_is_left_alone(void **state)
{
    struct fake *f = *state;
    struct server *v = f->serve_arg;
    struct answer a;
    talk_and_unload(f);
    damage(f);
    say(f, (struct str){later, sizeof later}, &a);
    must_get(&a);
    answered(&a, 700, 20, 0);
    assert_int_equal(v->restores, 0);
    assert_true(decided(f, "kv_failed a"));
    assert_int_equal(counters(f).kv_files, 0);
    assert_false(decided(f, "kv_off a"));
}

static void test_a_server_that_cannot_write(void **state)
{
    struct fake *f = *state;
    struct server *v = f->serve_arg;
    v->save_status = 500;
    talk_and_unload(f);
    talk_and_unload(f);
    assert_int_equal(v->saves, 2);
    assert_int_equal(times_decided(f, "kv_failed a"), 1); /* told once */
    assert_int_equal(counters(f).kv_files, 0);
    assert_int_equal(counters(f).kv_failures, 2);
    v->save_status = 0;
    talk_and_unload(f);
    assert_int_equal(counters(f).kv_files, 1);
}

static void test_a_server_that_cannot_read(void **state)
{
    struct fake *f = *state;
    struct server *v = f->serve_arg;
    struct answer a;
    talk_and_unload(f);
    v->restore_status = 400;
    say(f, (struct str){later, sizeof later}, &a);
    must_get(&a);
    answered(&a, 700, 20, 0);
    assert_true(decided(f, "kv_failed a"));
    assert_int_equal(counters(f).kv_files, 0); /* it is not tried again */
}

static bool is_asked_to_read(struct fake *f, void *arg)
{
    (void)arg;
    return ((struct server *)f->serve_arg)->restores == 1;
}

static void test_who_leaves_while_it_is_read(void **state)
{
    struct fake *f = *state;
    struct server *v = f->serve_arg;
    struct answer a;
    talk_and_unload(f);
    say(f, (struct str){first, 300}, &a); /* loads it; too short a beginning to be worth it */
    must_get(&a);
    answered(&a, 70, 2, 0);
    v->mute = true;
    say(f, (struct str){later, sizeof later}, &a);
    assert_int_equal(a.first, POOL_WAITING);
    struct pool_look look;
    pool_look(a.wait, &look);
    pool_cancel(f->pool, a.wait); /* while its file is looked at */
    fake_settle(f);
    assert_int_equal(instance_of(f, "a")->busy, 0);
    assert_false(a.told);
    assert_int_equal(v->restores, 0);
    unload(f, true);
    say(f, (struct str){first, 300}, &a);
    must_get(&a);
    answered(&a, 70, 2, 0);
    say(f, (struct str){later, sizeof later}, &a);
    fake_run_until(f, is_asked_to_read, NULL);
    pool_cancel(f->pool, a.wait); /* while the server reads it */
    fake_settle(f);
    assert_int_equal(instance_of(f, "a")->busy, 0);
    assert_false(a.told);
}

static void test_the_shorter_and_those_by_force_are_not_kept(void **state)
{
    struct fake *f = *state;
    struct server *v = f->serve_arg;
    struct answer a;
    v->slots[0].tokens = 100;
    say(f, (struct str){first, sizeof first}, &a);
    must_get(&a);
    answered(&a, 90, 10, 0);
    unload(f, false);
    assert_int_equal(v->lists, 0); /* not even asked */
    say(f, (struct str){first, sizeof first}, &a);
    must_get(&a);
    answered(&a, 500, 50, 0);
    unload(f, true);
    assert_int_equal(v->saves, 0);
}

static void test_recurrent_layers_are_never_tried(void **state)
{
    struct fake *f = *state;
    struct server *v = f->serve_arg;
    f->checkpoint_bytes = 1;
    talk_and_unload(f);
    assert_int_equal(v->lists, 0);
    assert_int_equal(v->saves, 0);
    f->settings[0].kv_keep = POOL_KV_FORCE;
    f->settings[0].settings_hash = 8;
    fake_set_models(f, 3);
    talk_and_unload(f);
    assert_int_equal(v->saves, 1);
    f->settings[0].kv_keep = POOL_KV_OFF;
    f->settings[0].settings_hash = 9;
    f->checkpoint_bytes = 0;
    fake_set_models(f, 3);
    talk_and_unload(f);
    assert_int_equal(v->saves, 1);
}

static void test_the_quota_holds(void **state)
{
    struct fake *f = *state;
    struct server *v = f->serve_arg;
    f->opt.kv_quota = 24; /* one byte less than it takes */
    fake_options(f);
    talk_and_unload(f);
    assert_int_equal(v->saves, 1);
    assert_int_equal(counters(f).kv_files, 0);
    f->opt.kv_quota = 25;
    fake_options(f);
    talk_and_unload(f);
    assert_int_equal(counters(f).kv_files, 1);
    f->opt.kv_quota = 0;
    fake_options(f);
    assert_int_equal(counters(f).kv_files, 0);
    talk_and_unload(f);
    assert_int_equal(v->saves, 2);
}

static void test_what_the_index_does_not_name_is_removed(void **state)
{
    struct fake *f = *state;
    char path[256], kept[256];
    talk_and_unload(f);
    snprintf(path, sizeof path, "%s/00000000000000ff.kv", f->kv_dir);
    snprintf(kept, sizeof kept, "%s/of-somebody-else", f->kv_dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    close(open(kept, O_CREAT | O_WRONLY, 0600));
    fake_restart(f);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(access(kept, F_OK), 0);
    assert_int_equal(counters(f).kv_files, 1);
    snprintf(path, sizeof path, "%s/index.json", f->kv_dir);
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, "{", 1), 1);
    close(fd);
    fake_restart(f); /* begun anew */
    assert_int_equal(counters(f).kv_files, 0);
    assert_null(pool_kv_problem(f->pool));
}

static void test_a_folder_serves_one(void **state)
{
    struct fake *f = *state;
    struct kv_store *second = NULL;
    const struct kv_store_events none = {NULL, NULL, NULL};
    struct err err;
    struct stat st;
    assert_int_equal(kv_store_open(f->kv_dir, 1, &f->loop, &none, &second, &err), RC_BUSY);
    assert_non_null(strstr(err.message, f->kv_dir));
    assert_true(err.hint[0]);
    char open_dir[] = "/tmp/arriero-kv-open-XXXXXX";
    assert_non_null(mkdtemp(open_dir));
    assert_int_equal(chmod(open_dir, 0750), 0);
    assert_int_equal(kv_store_open(open_dir, 1, &f->loop, &none, &second, &err), RC_DENIED);
    assert_non_null(strstr(err.hint, "chmod 700"));
    assert_int_equal(rmdir(open_dir), 0);
    assert_int_equal(kv_store_open("/proc/nothing/here", 1, &f->loop, &none, &second, &err), RC_IO);
    talk_and_unload(f);
    assert_int_equal(stat(f->kv_dir, &st), 0);
    assert_int_equal(st.st_mode & 077, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_it_goes_on_after_a_swap),
        TEST(test_a_restart_knows_it),
        TEST(test_no_help_twice_switches_it_off),
        TEST(test_a_damaged_file_is_left_alone),
        TEST(test_a_server_that_cannot_write),
        TEST(test_a_server_that_cannot_read),
        TEST(test_who_leaves_while_it_is_read),
        TEST(test_the_shorter_and_those_by_force_are_not_kept),
        TEST(test_recurrent_layers_are_never_tried),
        TEST(test_the_quota_holds),
        TEST(test_what_the_index_does_not_name_is_removed),
        TEST(test_a_folder_serves_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
