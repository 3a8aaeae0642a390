/* Unit tests of the history store: what is written is read back; a corrupt, unwritable, full or newer file;
 * old schemas; bounds; a process that dies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "os/file.h"
#include "store/store_priv.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct place {
    char dir[64];
    char db[128];
};

static int make_place(void **state)
{
    struct place *p = mem_new(struct place);
    snprintf(p->dir, sizeof p->dir, "/tmp/test-store-XXXXXX");
    if (!mkdtemp(p->dir))
        return -1;
    snprintf(p->db, sizeof p->db, "%s/history.db", p->dir);
    *state = p;
    return 0;
}

static int remove_place(void **state)
{
    struct place *p = *state;
    DIR *d = opendir(p->dir);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        auto_free char *path = mem_printf("%s/%s", p->dir, e->d_name);
        if (unlink(path) != 0)
            rmdir(path);
    }
    if (d)
        closedir(d);
    rmdir(p->dir);
    free(p);
    return 0;
}

static unsigned count_files(const struct place *p, const char *part)
{
    unsigned n = 0;
    DIR *d = opendir(p->dir);
    struct dirent *e;
    while (d && (e = readdir(d)))
        n += strstr(e->d_name, part) != NULL;
    if (d)
        closedir(d);
    return n;
}

static struct store_request request_of(const char *model, int status)
{
    return (struct store_request){.wall_ms = 1700000000123,
                                  .model = model,
                                  .instance = "i-1",
                                  .path = "/v1/chat/completions",
                                  .outcome = "ok",
                                  .status = status,
                                  .streamed = true,
                                  .prompt_tokens = 12,
                                  .completion_tokens = 34,
                                  .tokens_known = true,
                                  .request_bytes = 100,
                                  .response_bytes = UINT64_MAX,
                                  .total_us = 5000};
}

static struct store_decision decision_of(const char *kind, const char *model)
{
    return (struct store_decision){.wall_ms = 1700000000000,
                                   .kind = kind,
                                   .model = model,
                                   .instance = "i-1",
                                   .reasons_json =
                                       "[{\"code\":\"single_gpu\",\"text\":\"fits \\\"CUDA0\\\"\"}]",
                                   .plan_json = NULL,
                                   .seconds = 1.5};
}

typedef enum rc (*reader)(struct store *, struct str, unsigned, struct buf *, struct err *);

static yyjson_doc *read_all(struct store *s, reader fn, const char *model, unsigned limit)
{
    struct buf out = {0};
    struct err err;
    assert_int_equal(fn(s, str_from(model), limit, &out, &err), RC_OK);
    yyjson_doc *doc = yyjson_read(out.data, out.n, 0);
    assert_non_null(doc);
    assert_true(yyjson_is_arr(yyjson_doc_get_root(doc)));
    buf_release(&out);
    return doc;
}

static size_t rows(struct store *s, reader fn, const char *model, unsigned limit)
{
    yyjson_doc *doc = read_all(s, fn, model, limit);
    size_t n = yyjson_arr_size(yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
    return n;
}

static struct store *open_ok(const struct place *p, const struct store_options *opt)
{
    struct store *s = NULL;
    struct err err = {0};
    struct store_options plain;
    store_options_default(&plain);
    plain.max_age_ms = 0; /* the rows here bear fixed dates */
    enum rc rc = store_open_with(p->db, opt ? opt : &plain, &s, &err);
    if (rc != RC_OK)
        fail_msg("%s", err.message);
    return s;
}

static void write_file(const char *path, const char *text, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void reads_back_what_was_posted(void **state)
{
    struct place *p = *state;
    struct store *s = open_ok(p, NULL);
    struct store_request r = request_of("a/b:Q4", 200);
    store_post_request(s, &r);
    r.tokens_known = false;
    r.status = 502;
    store_post_request(s, &r);
    struct store_decision d = decision_of("ready", "a/b:Q4");
    store_post_decision(s, &d);
    struct store_measure m = {.wall_ms = 1,
                              .model = "m",
                              .model_path = "/m.gguf",
                              .runtime = "llamacpp",
                              .device = "CUDA0",
                              .predicted_bytes = 10,
                              .measured_bytes = 11};
    store_post_measure(s, &m);
    struct store_instance i = {.wall_ms = 2, .instance = "i-1", .model = "m", .state = "ready", .pid = 7};
    store_post_instance(s, &i);
    assert_true(store_flush(s, 10000));
    struct store_health h;
    store_health(s, &h);
    assert_true(h.writable);
    assert_false(h.replaced);
    assert_string_equal(h.message, "");
    assert_int_equal(h.written, 5);
    assert_int_equal(h.queued, 0);
    yyjson_doc *doc = read_all(s, store_requests_json, "", 10);
    yyjson_val *newest = yyjson_arr_get(yyjson_doc_get_root(doc), 0);
    yyjson_val *oldest = yyjson_arr_get(yyjson_doc_get_root(doc), 1);
    assert_int_equal(json_u64(newest, "status", 0), 502);
    assert_true(yyjson_is_null(yyjson_obj_get(newest, "prompt_tokens")));
    assert_int_equal(json_u64(oldest, "prompt_tokens", 0), 12);
    assert_true(json_bool(oldest, "streamed", false));
    assert_int_equal(json_u64(oldest, "response_bytes", 0), INT64_MAX);
    assert_true(str_eq_c(json_str(oldest, "at", STR("")), "2023-11-14T22:13:20.123Z"));
    yyjson_doc_free(doc);
    doc = read_all(s, store_decisions_json, "a/b:Q4", 10);
    yyjson_val *one = yyjson_arr_get_first(yyjson_doc_get_root(doc));
    yyjson_val *reason = yyjson_arr_get_first(yyjson_obj_get(one, "reasons"));
    assert_true(str_eq_c(json_str(reason, "text", STR("")), "fits \"CUDA0\""));
    assert_true(yyjson_is_null(yyjson_obj_get(one, "plan")));
    assert_true(json_double(one, "seconds", 0) > 1.49);
    yyjson_doc_free(doc);
    assert_int_equal(rows(s, store_decisions_json, "other", 10), 0);
    assert_int_equal(rows(s, store_requests_json, "", 1), 1);
    assert_int_equal(rows(s, store_measures_json, "", 5), 1);
    assert_int_equal(rows(s, store_instances_json, "m", 5), 1);
    store_close(s);
    /* and after a restart */
    s = open_ok(p, NULL);
    assert_int_equal(rows(s, store_requests_json, "", 10), 2);
    store_close(s);
    struct stat st;
    assert_int_equal(stat(p->db, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void a_broken_reasons_text_does_not_break_the_answer(void **state)
{
    struct store *s = open_ok(*state, NULL);
    struct store_decision d = decision_of("load", "m");
    d.reasons_json = "[{\"code\":";
    store_post_decision(s, &d);
    size_t n = 100 * 1024;
    auto_free char *huge = mem_calloc(1, n + 1);
    memset(huge, ' ', n);
    d.reasons_json = huge;
    d.model = huge;
    store_post_decision(s, &d);
    yyjson_doc *doc = read_all(s, store_decisions_json, "", 10);
    yyjson_val *root = yyjson_doc_get_root(doc);
    assert_int_equal(yyjson_arr_size(root), 2);
    assert_true(yyjson_is_null(yyjson_obj_get(yyjson_arr_get(root, 0), "reasons")));
    assert_true(yyjson_is_null(yyjson_obj_get(yyjson_arr_get(root, 1), "reasons")));
    yyjson_doc_free(doc);
    store_close(s);
}

static void check_replaced(const struct place *p, unsigned asides)
{
    struct store *s = open_ok(p, NULL);
    struct store_health h;
    store_health(s, &h);
    assert_true(h.replaced);
    assert_true(h.writable);
    assert_non_null(strstr(h.message, "corrupt"));
    assert_int_equal(count_files(p, ".corrupt-"), asides);
    struct store_decision d = decision_of("load", "m");
    store_post_decision(s, &d);
    assert_true(store_flush(s, 10000));
    assert_int_equal(rows(s, store_decisions_json, "", 10), 1);
    store_close(s);
}

static void a_file_that_is_no_database_is_moved_aside(void **state)
{
    struct place *p = *state;
    char junk[8192];
    memset(junk, 'x', sizeof junk);
    write_file(p->db, junk, sizeof junk);
    check_replaced(p, 1);
    write_file(p->db, "SQLite format 3\0garbage follows", 31);
    check_replaced(p, 2);
}

static void a_damaged_page_is_noticed_at_start(void **state)
{
    struct place *p = *state;
    struct store *s = open_ok(p, NULL);
    for (int i = 0; i < 2000; i++) {
        struct store_request r = request_of("m", 200);
        store_post_request(s, &r);
    }
    store_close(s);
    FILE *f = fopen(p->db, "r+b");
    assert_non_null(f);
    char junk[4096];
    memset(junk, 0xA5, sizeof junk);
    for (long page = 2; page < 30; page++) {
        assert_int_equal(fseek(f, page * 4096, SEEK_SET), 0);
        assert_int_equal(fwrite(junk, 1, sizeof junk, f), sizeof junk);
    }
    fclose(f);
    check_replaced(p, 1);
}

static void without_a_writable_file_it_works_in_memory(void **state)
{
    struct place *p = *state;
    /* A directory where the file should be cannot be opened by anyone, root included. */
    assert_int_equal(mkdir(p->db, 0700), 0);
    struct store_options opt;
    store_options_default(&opt);
    opt.max_age_ms = 0;
    opt.retry_ms = 1;
    struct store *s = open_ok(p, &opt);
    struct store_health h;
    store_health(s, &h);
    assert_false(h.writable);
    assert_non_null(strstr(h.message, p->db));
    struct store_decision d = decision_of("load", "m");
    store_post_decision(s, &d);
    d.kind = "ready";
    store_post_decision(s, &d);
    yyjson_doc *doc = read_all(s, store_decisions_json, "m", 10);
    yyjson_val *root = yyjson_doc_get_root(doc);
    assert_int_equal(yyjson_arr_size(root), 2);
    assert_true(str_eq_c(json_str(yyjson_arr_get(root, 0), "kind", STR("")), "ready"));
    yyjson_doc_free(doc);
    /* The obstacle goes away: what was kept is written without being asked for again. */
    assert_int_equal(rmdir(p->db), 0);
    while (!store_flush(s, 10000)) /* ends, or the runner ends the test */
        sched_yield();
    store_health(s, &h);
    assert_string_equal(h.message, "");
    assert_true(h.writable);
    assert_int_equal(h.written, 2);
    store_close(s);
    s = open_ok(p, NULL);
    store_health(s, &h);
    assert_string_equal(h.message, "");
    assert_int_equal(rows(s, store_decisions_json, "", 10), 2);
    store_close(s);
}

static void an_unreachable_directory_is_no_failure(void **state)
{
    (void)state;
    struct store *s = NULL;
    struct err err;
    assert_int_equal(store_open("/proc/no-such-place/history.db", &s, &err), RC_OK);
    struct store_health h;
    store_health(s, &h);
    assert_false(h.writable);
    assert_true(strlen(h.message) > 0);
    store_close(s);
    store_close(NULL);
}

static void a_full_disk_is_told_and_rows_are_kept(void **state)
{
    struct place *p = *state;
    struct store *s = open_ok(p, NULL);
    store_close(s); /* the schema has room */
    struct store_options opt;
    store_options_default(&opt);
    opt.max_age_ms = 0;
    opt.max_pages = 20;
    opt.retry_ms = 3600 * 1000;
    opt.queue_rows = 3000;
    s = open_ok(p, &opt);
    for (int i = 0; i < 5000; i++) {
        struct store_request r = request_of("m", i);
        store_post_request(s, &r);
        if (i % 500 == 0)
            store_flush(s, 10000);
    }
    struct store_decision d = decision_of("load", "m");
    store_post_decision(s, &d);
    store_flush(s, 10000);
    struct store_health h;
    store_health(s, &h);
    assert_false(h.writable);
    assert_non_null(strstr(h.message, "full"));
    assert_true(h.queued > 0 && h.queued <= opt.queue_rows);
    assert_true(h.written > 0);
    assert_int_equal(h.written + h.dropped + h.queued, 5001);
    /* newest first, across memory and file */
    yyjson_doc *doc = read_all(s, store_requests_json, "", 10000);
    yyjson_val *root = yyjson_doc_get_root(doc);
    assert_int_equal(yyjson_arr_size(root), h.written + h.queued - 1);
    assert_int_equal(json_u64(yyjson_arr_get_first(root), "status", 0), 4999);
    yyjson_doc_free(doc);
    assert_int_equal(rows(s, store_decisions_json, "", 10), 1);
    store_close(s);
    /* with room again, the file is sound */
    s = open_ok(p, NULL);
    store_health(s, &h);
    assert_true(h.writable);
    assert_false(h.replaced);
    store_close(s);
}

static unsigned found(struct store *s, const struct store_filter *f)
{
    struct buf out = {0};
    yyjson_doc *doc = NULL;
    assert_int_equal(store_find_requests(s, f, &out, NULL), RC_OK);
    assert_int_equal(json_parse(buf_str(&out), "rows", &doc, NULL), RC_OK);
    unsigned n = (unsigned)yyjson_arr_size(yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
    buf_release(&out);
    return n;
}

/* The same rows whether they wait in memory or are written. */
static void check_filters(struct store *s)
{
    assert_int_equal(found(s, &(struct store_filter){.limit = 100}), 6);
    assert_int_equal(found(s, &(struct store_filter){.limit = 2}), 2);
    assert_int_equal(found(s, &(struct store_filter){.key = STR("k1"), .limit = 100}), 3);
    assert_int_equal(found(s, &(struct store_filter){.key = STR("k1"), .model = STR("m0"), .limit = 100}), 1);
    assert_int_equal(found(s, &(struct store_filter){.failed = true, .limit = 100}), 2);
    assert_int_equal(found(s, &(struct store_filter){.outcome = STR("ok"), .limit = 100}), 4);
    assert_int_equal(found(s, &(struct store_filter){.since_ms = 1003, .limit = 100}), 3);
    assert_int_equal(found(s, &(struct store_filter){.request_id = STR("r4"), .limit = 100}), 1);
    assert_int_equal(found(s, &(struct store_filter){.key = STR("' OR 1 --"), .limit = 100}), 0);
}

static void post_six(struct store *s)
{
    for (int i = 0; i < 6; i++) {
        char model[4], key[4], id[4];
        snprintf(model, sizeof model, "m%d", i % 3);
        snprintf(key, sizeof key, "k%d", i % 2);
        snprintf(id, sizeof id, "r%d", i);
        const struct store_request r = {.wall_ms = 1000 + i,
                                        .model = model,
                                        .instance = "",
                                        .path = "/",
                                        .outcome = i % 3 == 2 ? "refused" : "ok",
                                        .key = key,
                                        .request_id = id,
                                        .tokens_known = i < 4,
                                        .completion_tokens = 10,
                                        .decode_tps = i == 1 ? 50 : 0};
        store_post_request(s, &r);
    }
}

static void requests_are_found_and_added_up(void **state)
{
    struct place *p = *state;
    struct store_options opt;
    struct buf out = {0};
    store_options_default(&opt);
    opt.max_age_ms = 0;
    struct store *s = open_ok(p, &opt);
    post_six(s);
    check_filters(s);
    assert_int_equal(store_usage_json(s, true, false, 0, &out, NULL), RC_OK);
    assert_non_null(strstr(out.data,
                           "{\"key\":\"k1\",\"model\":null,\"requests\":3,\"ok\":2,\"prompt_tokens\":0,"
                           "\"completion_tokens\":20,"));
    assert_non_null(strstr(out.data, "\"decode_tps\":50,")); /* unknown ones do not count as 0 */
    assert_non_null(strstr(out.data, "\"decode_tps\":null,"));
    buf_clear(&out);
    assert_int_equal(store_usage_json(s, false, true, 1003, &out, NULL), RC_OK);
    assert_non_null(strstr(out.data, "{\"key\":null,\"model\":\"m0\",\"requests\":1,"));
    buf_clear(&out);
    const struct store_capture c = {.wall_ms = 1,
                                    .request_id = "r1",
                                    .key = "k1",
                                    .model = "m",
                                    .path = "/",
                                    .request = "ask",
                                    .response = "said"};
    store_post_capture(s, &c);
    const struct store_filter f = {.request_id = STR("r1"), .limit = 5};
    assert_int_equal(store_find_captures(s, &f, &out, NULL), RC_OK);
    assert_non_null(strstr(out.data, "\"request\":\"ask\",\"response\":\"said\""));
    buf_release(&out);
    store_close(s);
    opt.max_pages = 1; /* nothing can be written: rows stay in memory */
    char path[512];
    snprintf(path, sizeof path, "%s/none/there/history.db", "/proc");
    if (store_open_with(path, &opt, &s, NULL) == RC_OK) {
        post_six(s);
        check_filters(s);
        store_close(s);
    }
}

static void the_oldest_requests_go_first(void **state)
{
    struct place *p = *state;
    assert_int_equal(mkdir(p->db, 0700), 0);
    struct store_options opt;
    store_options_default(&opt);
    opt.max_age_ms = 0;
    opt.queue_rows = 10;
    opt.retry_ms = 3600 * 1000;
    struct store *s = open_ok(p, &opt);
    for (int i = 0; i < 4; i++) {
        struct store_decision d = decision_of("load", "m");
        store_post_decision(s, &d);
    }
    for (int i = 0; i < 20; i++) {
        struct store_request r = request_of("m", i);
        store_post_request(s, &r);
    }
    assert_int_equal(rows(s, store_decisions_json, "", 100), 4);
    yyjson_doc *doc = read_all(s, store_requests_json, "", 100);
    yyjson_val *root = yyjson_doc_get_root(doc);
    assert_int_equal(yyjson_arr_size(root), 6);
    assert_int_equal(json_u64(yyjson_arr_get(root, 5), "status", 0), 14);
    yyjson_doc_free(doc);
    struct store_health h;
    store_health(s, &h);
    assert_int_equal(h.dropped, 14);
    store_close(s);
}

static void old_rows_are_trimmed(void **state)
{
    struct place *p = *state;
    struct store *s = open_ok(p, NULL);
    for (int i = 0; i < 100; i++) {
        struct store_request r = request_of("m", i);
        r.wall_ms = clock_wall_ms();
        store_post_request(s, &r);
        struct store_decision d = decision_of("load", "m");
        d.wall_ms = i < 60 ? 1000 : clock_wall_ms();
        store_post_decision(s, &d);
    }
    store_close(s);
    struct store_options opt;
    store_options_default(&opt);
    opt.max_requests = 30;
    s = open_ok(p, &opt);
    struct store_measure m = {.model = "m"};
    store_post_measure(s, &m);
    assert_true(store_flush(s, 10000)); /* the trim comes before the first batch */
    assert_int_equal(rows(s, store_requests_json, "", 1000), 30);
    assert_int_equal(rows(s, store_decisions_json, "", 1000), 40);
    store_close(s);
}

static int64_t version_of(const char *path)
{
    sqlite3 *db;
    sqlite3_stmt *q;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &q, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(q), SQLITE_ROW);
    int64_t v = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    sqlite3_close(db);
    return v;
}

static void old_schemas_are_migrated(void **state)
{
    struct place *p = *state;
    for (int from = 0; from < store_version; from++) {
        unlink(p->db);
        sqlite3 *db;
        assert_int_equal(sqlite3_open(p->db, &db), SQLITE_OK);
        for (int step = 0; step < from; step++)
            assert_int_equal(sqlite3_exec(db, store_migrations[step], NULL, NULL, NULL), SQLITE_OK);
        auto_free char *pragma = mem_printf("PRAGMA user_version=%d", from);
        assert_int_equal(sqlite3_exec(db, pragma, NULL, NULL, NULL), SQLITE_OK);
        if (from > 0)
            assert_int_equal(
                sqlite3_exec(db, "INSERT INTO decisions (at_ms, kind, model) VALUES (5, 'load', 'old')", NULL,
                             NULL, NULL),
                SQLITE_OK);
        sqlite3_close(db);
        struct store *s = open_ok(p, NULL);
        struct store_health h;
        store_health(s, &h);
        assert_true(h.writable);
        assert_int_equal(rows(s, store_decisions_json, "", 10), from > 0 ? 1 : 0);
        assert_int_equal(rows(s, store_instances_json, "", 10), 0);
        store_close(s);
        assert_int_equal(version_of(p->db), store_version);
    }
}

static void a_newer_file_is_left_alone(void **state)
{
    struct place *p = *state;
    sqlite3 *db;
    assert_int_equal(sqlite3_open(p->db, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE t (x); PRAGMA user_version=999", NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    struct store *s = open_ok(p, NULL);
    struct store_health h;
    store_health(s, &h);
    assert_false(h.writable);
    assert_non_null(strstr(h.message, "newer"));
    store_close(s);
    assert_int_equal(version_of(p->db), 999);
    assert_int_equal(count_files(p, ".corrupt-"), 0);
}

static void many_posts_are_all_written(void **state)
{
    struct store_options opt;
    store_options_default(&opt);
    opt.max_age_ms = 0;
    opt.queue_rows = 100000;
    opt.queue_bytes = 100 * MIB;
    struct store *s = open_ok(*state, &opt);
    enum { N = 20000 };
    for (int i = 0; i < N; i++) {
        struct store_request r = request_of("m", i);
        store_post_request(s, &r);
    }
    assert_true(store_flush(s, 60000));
    struct store_health h;
    store_health(s, &h);
    assert_int_equal(h.written, N);
    assert_int_equal(h.dropped, 0);
    yyjson_doc *doc = read_all(s, store_requests_json, "", 3);
    assert_int_equal(json_u64(yyjson_arr_get_first(yyjson_doc_get_root(doc)), "status", 0), N - 1);
    yyjson_doc_free(doc);
    store_close(s);
}

static void what_was_flushed_survives_a_killed_process(void **state)
{
    struct place *p = *state;
    pid_t pid = fork();
    if (pid == 0) {
        struct store *s = NULL;
        if (store_open(p->db, &s, NULL) != RC_OK)
            _exit(2);
        for (int i = 0; i < 100; i++) {
            struct store_decision d = decision_of("load", "m");
            store_post_decision(s, &d);
        }
        if (!store_flush(s, 10000))
            _exit(3);
        for (int i = 0; i < 1000; i++) { /* may be in the middle of a transaction */
            struct store_decision d = decision_of("ready", "m");
            store_post_decision(s, &d);
        }
        kill(getpid(), SIGKILL);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    struct store *s = open_ok(p, NULL);
    struct store_health h;
    store_health(s, &h);
    assert_true(h.writable);
    assert_false(h.replaced);
    assert_true(rows(s, store_decisions_json, "", 10000) >= 100);
    store_close(s);
}

static void a_file_that_breaks_while_in_use_is_replaced(void **state)
{
    struct place *p = *state;
    struct store_options opt;
    store_options_default(&opt);
    opt.max_age_ms = 0;
    opt.retry_ms = 1;
    struct store *s = open_ok(p, &opt);
    struct store_decision d = decision_of("load", "m");
    store_post_decision(s, &d);
    assert_true(store_flush(s, 10000));
    store_close(s);
    s = open_ok(p, &opt);
    /* Behind its back: every page of the file and the journal turn to junk. */
    static const char *const names[] = {"", "-wal"};
    for (size_t i = 0; i < 2; i++) {
        auto_free char *path = mem_printf("%s%s", p->db, names[i]);
        FILE *f = fopen(path, "r+b");
        assert_true(f || i == 1);
        if (!f)
            continue;
        char junk[64 * 1024];
        memset(junk, 0x5A, sizeof junk);
        fwrite(junk, 1, sizeof junk, f);
        fclose(f);
    }
    do
        store_post_decision(s, &d);
    while (!store_flush(s, 10000));
    struct store_health h;
    store_health(s, &h);
    assert_true(h.writable);
    store_close(s);
    s = open_ok(p, NULL);
    store_health(s, &h);
    assert_true(h.writable);
    store_close(s);
}

/* ---- what was learned ---- */

struct taught {
    unsigned lessons, figures;
    double last_value;
    char device[32], kind[16];
};

static void on_lesson(void *arg, const struct store_lesson *l)
{
    struct taught *t = arg;
    t->lessons++;
    t->last_value = l->value;
    snprintf(t->device, sizeof t->device, "%s", l->device);
    snprintf(t->kind, sizeof t->kind, "%s", l->kind);
    assert_true(l->flash_attn);
    assert_string_equal(l->quantization, "");
    assert_true(l->size == 2e9);
}

static void on_figure(void *arg, const struct store_figure *f)
{
    struct taught *t = arg;
    t->figures++;
    t->last_value = f->value;
    assert_string_equal(f->machine, "here");
}

static void lessons_and_figures_are_kept(void **state)
{
    struct place *p = *state;
    struct store_options opt;
    struct store *s;
    struct err err;
    struct taught t = {0};
    store_options_default(&opt);
    opt.max_age_ms = 1; /* they do not age */
    opt.max_lessons = 100;
    assert_int_equal(store_read_lessons(p->db, on_lesson, &t, &err), RC_NOT_FOUND);
    for (int round = 0; round < 2; round++) { /* the second start trims */
        assert_int_equal(store_open_with(p->db, &opt, &s, &err), RC_OK);
        for (int i = 0; round == 0 && i < 120; i++)
            store_post_lesson(s, &(struct store_lesson){.wall_ms = 1,
                                                        .kind = "overhead",
                                                        .model = "m",
                                                        .runtime = "0.7.0",
                                                        .device = i < 119 ? "a card" : "the last card",
                                                        .architecture = "llama",
                                                        .quantization = NULL,
                                                        .flash_attn = true,
                                                        .value = i,
                                                        .size = 2e9});
        for (int i = 0; round == 0 && i < 3; i++)
            store_post_figure(s, &(struct store_figure){.wall_ms = i,
                                                        .machine = i == 1 ? "elsewhere" : "here",
                                                        .device = "host",
                                                        .name = "read_gbps",
                                                        .value = 10.0 + i});
        store_close(s);
    }
    assert_int_equal(store_read_lessons(p->db, on_lesson, &t, &err), RC_OK);
    assert_int_equal(t.lessons, 100);
    assert_true(t.last_value == 119);
    assert_string_equal(t.device, "the last card");
    assert_string_equal(t.kind, "overhead");
    assert_int_equal(store_read_figures(p->db, "here", on_figure, &t, &err), RC_OK);
    assert_int_equal(t.figures, 2);
    assert_true(t.last_value == 12);
}

static void what_cannot_be_read_teaches_nothing(void **state)
{
    struct place *p = *state;
    struct taught t = {0};
    struct err err;
    sqlite3 *db;
    assert_int_equal(sqlite3_open(p->db, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, store_migrations[0], NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(store_read_lessons(p->db, on_lesson, &t, &err), RC_OK); /* an older schema */
    assert_int_equal(store_read_figures(p->db, "here", on_figure, &t, &err), RC_OK);
    write_file(p->db, "this is no database, and longer than a header of one would be…", 62);
    assert_int_equal(store_read_lessons(p->db, on_lesson, &t, &err), RC_INVALID);
    assert_non_null(strstr(err.message, p->db));
    assert_non_null(strstr(err.hint, "corrupt"));
    assert_int_equal(t.lessons + t.figures, 0);
}

#define PLACED(f) cmocka_unit_test_setup_teardown(f, make_place, remove_place)
int main(void)
{
    const struct CMUnitTest tests[] = {
        PLACED(lessons_and_figures_are_kept),
        PLACED(what_cannot_be_read_teaches_nothing),
        PLACED(reads_back_what_was_posted),
        PLACED(a_broken_reasons_text_does_not_break_the_answer),
        PLACED(a_file_that_is_no_database_is_moved_aside),
        PLACED(a_damaged_page_is_noticed_at_start),
        PLACED(without_a_writable_file_it_works_in_memory),
        PLACED(an_unreachable_directory_is_no_failure),
        PLACED(a_full_disk_is_told_and_rows_are_kept),
        PLACED(requests_are_found_and_added_up),
        PLACED(the_oldest_requests_go_first),
        PLACED(old_rows_are_trimmed),
        PLACED(old_schemas_are_migrated),
        PLACED(a_newer_file_is_left_alone),
        PLACED(many_posts_are_all_written),
        PLACED(what_was_flushed_survives_a_killed_process),
        PLACED(a_file_that_breaks_while_in_use_is_replaced),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
