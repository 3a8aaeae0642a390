/* Keys of the door: SHA-256 digests compared in constant time. Layer proxy; loop thread only. */
#ifndef PROXY_AUTH_H
#define PROXY_AUTH_H

#include "base/err.h"
#include "base/str.h"

#define AUTH_ID_CHARS 8u /* leading hex digits of the digest name a key in records */

struct auth;
/* Keys are 64 hex digits each; RC_INVALID names the first that is not. n 0 = everyone may enter. */
enum rc auth_new(const char *const *sha256_hex, size_t n, struct auth **ret_auth, struct err *err);
void auth_free(struct auth *a); /* NULL is fine */
bool auth_needed(const struct auth *a);
/* True if the secret's digest is among the keys; id gets AUTH_ID_CHARS digits and a NUL. The time taken
 * depends on the number of keys and the length of the secret only. */
bool auth_check(struct auth *a, struct str secret, char *ret_id);
/* The token of "Bearer TOKEN"; empty if the scheme is another. */
struct str auth_bearer(struct str authorization);

#endif
