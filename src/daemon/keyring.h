/* The file of keys that `arriero key` writes: reading, adding, revoking. Layer daemon; blocking I/O; any
 * thread; no state. Pure but for the calls that take a path.
 *
 * JSON: {"version":1,"keys":[{"id","salt","hash","name","scopes",…}]}, mode 0600, replaced as a whole under a
 * lock, so that two commands do not undo each other. A member that is not known is refused and not passed
 * over: it may be a limit that a newer version set. */
#ifndef DAEMON_KEYRING_H
#define DAEMON_KEYRING_H

#include "base/json.h"
#include "base/mem.h"
#include "daemon/config.h"
#include "proxy/auth.h"

#define KEYRING_SOURCE "keys_file" /* auth_spec.source of its keys */

struct key_set { /* texts lie in the arena */
    struct arena arena;
    struct auth_spec *specs;
    size_t n;
    bool found; /* the source is there: even without a key in it the door stays shut */
};
void key_set_release(struct key_set *k);

/* Where the file is: keys_file, else keys.json in the state directory. */
void keyring_path(const struct config *c, char *out, size_t cap);
/* RC_INVALID names file and key. */
enum rc keyring_parse(struct str text, const char *name, struct key_set *ret_keys, struct err *err);
void keyring_print(const struct key_set *k, struct buf *out);
/* A wish, as below, as the spec of a key to be: without id and secret. Its texts lie in the arena of k. */
enum rc keyring_wish(yyjson_val *wish, int64_t now_ms, struct key_set *k, struct auth_spec *ret_spec,
                     struct err *err);
/* No file: no keys. RC_DENIED when others may read or write it. */
enum rc keyring_read(const char *path, struct key_set *ret_keys, struct err *err);

/* Makes a key of a wish: {"name", "scopes": ["infer", "admin"], "models": [pattern], "requests_per_minute",
 * "tokens_per_minute", "concurrency", "priority", "captures", "expires_in": "30d" or "expires_at":
 * "2027-01-31"}; all but the name may be left out. Appends the key as a JSON object that has, this one time,
 * the secret: "key". RC_INVALID, RC_EXISTS (the name), RC_LIMIT, RC_DENIED, RC_IO. */
enum rc keyring_add(const char *path, yyjson_val *wish, int64_t now_ms, struct buf *out, struct err *err);
/* Takes the key of this id or name out. Appends what it was. RC_NOT_FOUND. */
enum rc keyring_revoke(const char *path, struct str which, struct buf *out, struct err *err);

/* What may be shown of a key, as a new object of doc. */
yyjson_mut_val *keyring_view(yyjson_mut_doc *doc, const struct auth_spec *k);

#endif
