/* Patterns of tensor overrides (--override-tensor): the Perl-like words people use, as POSIX has them, and
 * only those that match in sensible time. Layer plan; pure; see pattern.h. */
#include "plan/pattern.h"

#include <stdio.h>
#include <string.h>

#define MAX_REPEATS 256u /* of all counted repetitions together: each is written out when it is compiled */
#define MAX_NESTING 16

/* Perl's \d and (?: are usual in overrides and unknown to POSIX. */
static void posix_pattern(const char *in, char *out, size_t cap)
{
    size_t n = 0;
    for (; *in && n + 8 < cap; in++) {
        if (in[0] == '\\' && in[1] == 'd') {
            n += (size_t)snprintf(out + n, cap - n, "[0-9]");
            in++;
        } else if (in[0] == '(' && in[1] == '?' && in[2] == ':') {
            out[n++] = '(';
            in += 2;
        } else {
            out[n++] = *in;
        }
    }
    out[n] = '\0';
}

/* The largest number of "{2,5}". */
static unsigned counted(const char *p)
{
    unsigned most = 0, v = 0;
    for (; *p && *p != '}'; p++) {
        if (*p >= '0' && *p <= '9')
            v = v < 100000 ? v * 10 + (unsigned)(*p - '0') : v;
        else
            v = 0;
        most = v > most ? v : most;
    }
    return most;
}

/* Why the pattern must not be compiled; NULL = it may. */
static const char *danger(const char *p)
{
    unsigned repeats = 1, depth = 0;
    for (; *p; p++) {
        if (p[0] == '\\' && p[1]) {
            if (p[1] >= '1' && p[1] <= '9')
                return "refers back to a group";
            p++;
        } else if (*p == '[') { /* a set: up to its end, which may begin with ] */
            p += p[1] == '^' ? 2 : 1;
            p += *p == ']';
            while (*p && *p != ']')
                p++;
            if (!*p)
                return NULL; /* the compiler says so */
        } else if (*p == '(' && ++depth > MAX_NESTING) {
            return "has too many groups";
        } else if (*p == '{') {
            unsigned n = counted(p);
            repeats *= n > 1 ? n : 1;
            if (n > MAX_REPEATS || repeats > MAX_REPEATS)
                return "repeats too often";
        }
    }
    return NULL;
}

enum rc pattern_compile(regex_t *re, const char *pattern, struct err *err)
{
    char text[512], why[100];
    const char *bad = danger(pattern);
    if (bad)
        return err_set(err, RC_INVALID, "the tensor override '%s' %s", pattern, bad);
    posix_pattern(pattern, text, sizeof text);
    int code = regcomp(re, text, REG_EXTENDED | REG_NOSUB);
    if (!code)
        return RC_OK;
    regerror(code, re, why, sizeof why);
    return err_set(err, RC_INVALID, "the tensor override '%s' is no regular expression: %s", pattern, why);
}
