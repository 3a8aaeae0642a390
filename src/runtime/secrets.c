/* What children must not get and people must not see: see runtime.h. Layer runtime; pure but for reading our
 * environment. */
#include "runtime/runtime.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MASK "***"

/* A variable whose name ends so holds a secret, whoever's it is. */
static const char *const secret_ends[] = {"_TOKEN", "_KEY", "_KEYS", "_SECRET", "_PASSWORD", "_PASSPHRASE"};
/* Options whose value is a secret, with or without "=". */
static const char *const secret_options[] = {"--api-key", "--hf-token", "-hft"};

bool runtime_is_secret(struct str name)
{
    for (size_t i = 0; i < TABLE_COUNT(secret_ends); i++)
        if (str_ends(name, secret_ends[i]))
            return true;
    return str_starts(name, "ARRIERO_"); /* our own settings, keys among them */
}

static bool is_kept(const char *entry, const char *const *drop)
{
    struct str rest = str_from(entry), name = str_cut(&rest, '=');
    for (size_t i = 0; drop[i]; i++)
        if (strncmp(entry, drop[i], strlen(drop[i])) == 0)
            return false;
    return !runtime_is_secret(name);
}

bool runtime_child_env(const char *const *drop, const char *const *add, const char **out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; environ[i]; i++) {
        if (!is_kept(environ[i], drop))
            continue;
        if (n + 1 >= cap)
            return false;
        out[n++] = environ[i];
    }
    for (size_t i = 0; add[i]; i++) {
        if (n + 1 >= cap)
            return false;
        out[n++] = add[i];
    }
    out[n] = NULL;
    return true;
}

char *runtime_shown_arg(const char *const *args, size_t i)
{
    for (size_t k = 0; k < TABLE_COUNT(secret_options); k++) {
        const char *option = secret_options[k];
        size_t n = strlen(option);
        if (i > 0 && strcmp(args[i - 1], option) == 0)
            return mem_strdup(MASK);
        if (strncmp(args[i], option, n) == 0 && args[i][n] == '=')
            return mem_printf("%s=" MASK, option);
    }
    return mem_strdup(args[i]);
}
