/* API keys: from a file and from the environment, as SHA-256 digests. Layer daemon; blocking I/O. */
#ifndef DAEMON_KEYS_H
#define DAEMON_KEYS_H

#include "daemon/config.h"

struct key_list { /* hexadecimal digests; owned */
    char **hex;
    size_t n;
};
/* Reads api_keys_file and api_keys. Errors name the file and line, never a key. */
enum rc key_list_load(const struct config *c, struct key_list *ret_keys, struct err *err);
void key_list_release(struct key_list *k);

#endif
