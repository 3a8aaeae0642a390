/* The keys that somebody chose, and the file of those that arriero makes. */
#include "daemon/keys.h"

#include "os/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct config *parse(const char *text)
{
    struct config *c = NULL;
    struct err err;
    if (config_parse(str_from(text), "c.yaml", &c, &err) != RC_OK)
        fail_msg("%s", err.message);
    return c;
}

/* ---- keys that somebody chose ---- */

static struct config *with_keys(const char *text, char *path)
{
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    char yaml[128];
    snprintf(yaml, sizeof yaml, "api_keys_file: %s", path);
    return parse(yaml);
}

static void chosen_keys_become_digests(void **state)
{
    (void)state;
    char path[] = "/tmp/test-keys-XXXXXX";
    struct config *c = with_keys("# ours\n\n  abc  \n"
                                 "sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD\n",
                                 path);
    struct key_set k = {0};
    struct err err;
    assert_int_equal(keys_load(c, &k, &err), RC_OK);
    assert_int_equal(k.n, 2);
    assert_true(k.found);
    for (size_t i = 0; i < 2; i++) { /* FIPS 180-2, the digest of "abc" */
        assert_string_equal(k.specs[i].id, "ba7816bf");
        assert_memory_equal(k.specs[i].hash, "\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41", 10);
        assert_int_equal(k.specs[i].hash[31], 0xad);
        assert_int_equal(k.specs[i].scopes, AUTH_INFER);
        assert_false(k.specs[i].salted);
    }
    key_set_release(&k);
    config_free(c);
    unlink(path);
}

static void a_file_without_keys_does_not_open_the_door(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "# only a comment\n", "sha256:1234\n"};
    for (size_t i = 0; i < TABLE_COUNT(bad); i++) {
        char path[] = "/tmp/test-keys-XXXXXX";
        struct config *c = with_keys(bad[i], path);
        struct key_set k = {0};
        struct err err = {0};
        assert_int_equal(keys_load(c, &k, &err), RC_INVALID);
        assert_null(k.specs);
        assert_non_null(strstr(err.message, path));
        assert_null(strstr(err.message, "1234")); /* never a key */
        unlink(path);
        assert_int_equal(keys_load(c, &k, &err), RC_NOT_FOUND);
        config_free(c);
    }
    struct config *none = parse("");
    struct key_set k = {0};
    assert_int_equal(keys_load(none, &k, NULL), RC_OK);
    assert_int_equal(k.n, 0);
    assert_false(k.found);
    config_free(none);
}

/* ---- the file of keys ---- */

#define ID    "\"id\":\"0badcafe\""
#define SALT  "\"salt\":\"000102030405060708090a0b0c0d0e0f\""
#define HASH  "\"hash\":\"000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f\""
#define LEAST ID "," SALT "," HASH ",\"scopes\":[\"infer\"]"

static void the_file_is_read_strictly(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "keys.json"},
        {"{}", "not a file of keys"},
        {"{\"version\":1}", "not a file of keys"},
        {"{\"version\":2,\"keys\":[]}", "newer version"},
        {"{\"version\":1,\"keys\":[],\"more\":1}", "not a file of keys"},
        {"{\"version\":1,\"keys\":[1]}", "not an object"},
        {"{\"version\":1,\"keys\":[{}]}", "missing"},
        {"{\"version\":1,\"keys\":[{" ID "," SALT "," HASH "}]}", "missing"},
        {"{\"version\":1,\"keys\":[{" LEAST ",\"only_from\":\"10.0.0.0/8\"}]}", "\"only_from\" is not part"},
        {"{\"version\":1,\"keys\":[{" LEAST "," ID "}]}", "given twice"},
        {"{\"version\":1,\"keys\":[{" LEAST "},{" LEAST ",\"name\":1}]}", "key number 2: \"name\""},
        {"{\"version\":1,\"keys\":[{" LEAST ",\"name\":\"a\\u0007\"}]}", "control characters"},
        {"{\"version\":1,\"keys\":[{" LEAST ",\"models\":[\"a,b\"]}]}", "\"models\""},
        {"{\"version\":1,\"keys\":[{" LEAST ",\"models\":[\"\"]}]}", "\"models\""},
        {"{\"version\":1,\"keys\":[{" LEAST ",\"models\":\"a\"}]}", "\"models\""},
        {"{\"version\":1,\"keys\":[{" LEAST ",\"concurrency\":-1}]}", "\"concurrency\""},
        {"{\"version\":1,\"keys\":[{" LEAST ",\"tokens_per_minute\":1000000001}]}", "\"tokens_per_minute\""},
        {"{\"version\":1,\"keys\":[{" LEAST ",\"requests_per_minute\":1.5}]}", "\"requests_per_minute\""},
        {"{\"version\":1,\"keys\":[{" LEAST ",\"priority\":1001}]}", "\"priority\""},
        {"{\"version\":1,\"keys\":[{" LEAST ",\"captures\":1}]}", "\"captures\""},
        {"{\"version\":1,\"keys\":[{" LEAST ",\"expires_ms\":9223372036854775808}]}", "\"expires_ms\""},
        {"{\"version\":1,\"keys\":[{" ID "," SALT "," HASH ",\"scopes\":[]}]}", "infer, admin"},
        {"{\"version\":1,\"keys\":[{" ID "," SALT "," HASH ",\"scopes\":[\"root\"]}]}", "infer, admin"},
        {"{\"version\":1,\"keys\":[{\"id\":\"0BADCAFE\"," SALT "," HASH "}]}", "eight hexadecimal"},
        {"{\"version\":1,\"keys\":[{" ID ",\"salt\":\"00\"," HASH "}]}", "\"salt\""},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct key_set k = {0};
        struct err err = {0};
        enum rc rc = keyring_parse(str_from(rows[i].text), "keys.json", &k, &err);
        assert_true(rc != RC_OK);
        assert_null(k.specs);
        if (!strstr(err.message, rows[i].says) || !err.hint[0])
            fail_msg("%s: %s", rows[i].text, err.message);
    }
    struct key_set k = {0};
    assert_int_equal(keyring_parse(STR("{\"version\":1,\"keys\":[{" LEAST "}]}"), "k", &k, NULL), RC_OK);
    assert_int_equal(k.n, 1);
    assert_true(k.found && k.specs[0].salted);
    struct buf text = {0};
    struct key_set again = {0};
    keyring_print(&k, &text);
    assert_int_equal(keyring_parse(buf_str(&text), "k", &again, NULL), RC_OK);
    assert_memory_equal(again.specs[0].hash, k.specs[0].hash, AUTH_HASH_BYTES);
    buf_release(&text);
    key_set_release(&again);
    key_set_release(&k);
}

static yyjson_doc *wish(const char *text)
{
    yyjson_doc *doc = NULL;
    assert_int_equal(json_parse(str_from(text), "wish", &doc, NULL), RC_OK);
    return doc;
}

static enum rc add(const char *path, const char *text, struct buf *out, struct err *err)
{
    yyjson_doc *doc = wish(text);
    enum rc rc = keyring_add(path, yyjson_doc_get_root(doc), 1000, out, err);
    yyjson_doc_free(doc);
    return rc;
}

/* What was added opens the door, and nothing in the file tells the secret. */
static void a_key_lives(void **state)
{
    (void)state;
    char dir[] = "/tmp/test-ring-XXXXXX", path[64], lock[72];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/keys.json", dir);
    snprintf(lock, sizeof lock, "%s.lock", path);
    struct buf out = {0}, text = {0};
    struct err err = {0};
    struct stat st;
    assert_int_equal(add(path,
                         "{\"name\":\"ada\",\"scopes\":[\"infer\",\"admin\"],\"models\":[\"a*\",\"b\"],"
                         "\"requests_per_minute\":5,\"tokens_per_minute\":6,\"concurrency\":7,"
                         "\"priority\":-8,\"captures\":true,\"expires_in\":\"2s\"}",
                         &out, &err),
                     RC_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    yyjson_doc *shown = wish(out.data);
    struct str secret = json_str(yyjson_doc_get_root(shown), "key", STR(""));
    assert_int_equal(secret.n, 4 + 8 + 1 + 43);
    assert_true(
        str_eq_c(json_str(yyjson_doc_get_root(shown), "expires_at", STR("")), "1970-01-01T00:00:03.000Z"));
    assert_int_equal(file_read(path, 0, &text, NULL), RC_OK);
    assert_true(str_find(buf_str(&text), (struct str){secret.p + 13, 43}) < 0);
    struct key_set k = {0};
    assert_int_equal(keyring_read(path, &k, &err), RC_OK);
    assert_int_equal(k.n, 1);
    const struct auth_spec *s = &k.specs[0];
    assert_string_equal(s->name, "ada");
    assert_string_equal(s->models, "a*,b");
    assert_int_equal(s->scopes, AUTH_INFER | AUTH_ADMIN);
    assert_true(s->requests_per_minute == 5 && s->tokens_per_minute == 6 && s->concurrency == 7);
    assert_true(s->priority == -8 && s->captures && s->created_ms == 1000 && s->expires_ms == 3000);
    struct auth *a = NULL;
    struct auth_key *found = NULL;
    assert_int_equal(auth_new(&a, NULL), RC_OK);
    auth_set(a, k.specs, k.n, false, 0);
    assert_int_equal(auth_check(a, secret, 2999, &found), AUTH_OK);
    assert_int_equal(auth_check(a, secret, 3000, &found), AUTH_EXPIRED);
    auth_free(a);
    key_set_release(&k);
    yyjson_doc_free(shown);

    assert_int_equal(add(path, "{\"name\":\"ada\"}", &out, &err), RC_EXISTS);
    assert_int_equal(keyring_revoke(path, STR("nobody"), &out, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.hint, "arriero key list"));
    assert_int_equal(add(path, "{\"name\":\"eve\"}", &out, &err), RC_OK);
    assert_int_equal(keyring_revoke(path, STR("ada"), &out, &err), RC_OK);
    assert_int_equal(keyring_read(path, &k, &err), RC_OK);
    assert_int_equal(k.n, 1);
    assert_string_equal(k.specs[0].name, "eve");
    char id[16];
    snprintf(id, sizeof id, "%s", k.specs[0].id);
    key_set_release(&k);
    assert_int_equal(keyring_revoke(path, str_from(id), &out, &err), RC_OK);
    assert_int_equal(keyring_read(path, &k, &err), RC_OK);
    assert_int_equal(k.n, 0);
    assert_true(k.found); /* the door stays shut */
    key_set_release(&k);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(keyring_read(path, &k, &err), RC_DENIED);
    assert_non_null(strstr(err.hint, "chmod 600"));
    unlink(path);
    assert_int_equal(keyring_read(path, &k, &err), RC_OK);
    assert_false(k.found);
    unlink(lock);
    rmdir(dir);
    buf_release(&out);
    buf_release(&text);
}

static void wishes_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"{}", "no name"},
        {"{\"name\":\"\"}", "no name"},
        {"{\"name\":\"a\",\"hash\":\"00\"}", "\"hash\" is not part"},
        {"{\"name\":\"a\",\"expires_in\":\"soon\"}", "\"expires_in\""},
        {"{\"name\":\"a\",\"expires_at\":\"1970-01-01\"}", "\"expires_at\""},
        {"{\"name\":\"a\",\"expires_at\":\"2030-13-01\"}", "\"expires_at\""},
        {"{\"name\":\"a\",\"expires_at\":\"2030-01-01T00:00:00\"}", "\"expires_at\""},
        {"[]", "not an object"},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct buf out = {0};
        struct err err = {0};
        char path[] = "/tmp/test-wish.json";
        assert_int_equal(add(path, rows[i].text, &out, &err), RC_INVALID);
        if (!strstr(err.message, rows[i].says))
            fail_msg("%s: %s", rows[i].text, err.message);
        assert_false(file_exists(path));
        buf_release(&out);
    }
    unlink("/tmp/test-wish.json.lock");
    static const char *const dates[] = {"2030-01-02", "2030-01-02T00:00:00Z", "2030-01-02T00:00:00.123Z"};
    for (size_t i = 0; i < TABLE_COUNT(dates); i++) {
        char text[96];
        struct key_set k = {0};
        struct auth_spec s;
        snprintf(text, sizeof text, "{\"name\":\"a\",\"expires_at\":\"%s\"}", dates[i]);
        yyjson_doc *doc = wish(text);
        assert_int_equal(keyring_wish(yyjson_doc_get_root(doc), 0, &k, &s, NULL), RC_OK);
        assert_int_equal(s.expires_ms, INT64_C(1893542400000));
        yyjson_doc_free(doc);
        key_set_release(&k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chosen_keys_become_digests),
        cmocka_unit_test(a_file_without_keys_does_not_open_the_door),
        cmocka_unit_test(the_file_is_read_strictly),
        cmocka_unit_test(a_key_lives),
        cmocka_unit_test(wishes_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
