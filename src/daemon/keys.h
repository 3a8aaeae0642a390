/* The API keys that somebody chose: from a file and from the environment, as SHA-256 digests. Those that
 * arriero makes are in keyring.h. Layer daemon; blocking I/O. */
#ifndef DAEMON_KEYS_H
#define DAEMON_KEYS_H

#include "daemon/config.h"
#include "daemon/keyring.h"

/* Reads api_keys_file and api_keys: keys with the scope infer and no limits. Errors name the file and line,
 * never a key. */
enum rc keys_load(const struct config *c, struct key_set *ret_keys, struct err *err);

#endif
