/* Readers of small kernel text files, number lists and sets. Layer hw; any thread; no state.
 * Nothing read is trusted: lengths are capped, numbers checked, lists bounded. */
#include "hw/hw_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool hw_path(char ret_path[HW_PATH], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(ret_path, HW_PATH, fmt, ap);
    va_end(ap);
    return n > 0 && n < HW_PATH;
}

int hw_text_open(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
}

bool hw_text_pread(int fd, char *out, size_t cap)
{
    size_t n = 0;
    if (fd < 0)
        return false;
    while (n < cap - 1) {
        ssize_t got = pread(fd, out + n, cap - 1 - n, (off_t)n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return false;
        if (got == 0)
            break;
        n += (size_t)got;
    }
    out[n] = '\0';
    return true;
}

bool hw_text_read(const char *path, char *out, size_t cap)
{
    int fd = hw_text_open(path);
    if (fd < 0)
        return false;
    bool ok = hw_text_pread(fd, out, cap);
    close(fd);
    return ok;
}

bool hw_text_line(const char *path, char *out, size_t cap)
{
    if (!hw_text_read(path, out, cap))
        return false;
    struct str rest = str_from(out);
    struct str line = str_trim(str_cut(&rest, '\n'));
    if (line.n == 0)
        return false;
    memmove(out, line.p, line.n);
    out[line.n] = '\0';
    return true;
}

bool hw_text_write(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return false;
    size_t n = strlen(text);
    ssize_t wrote = write(fd, text, n); /* an attribute takes its value in one call */
    int error = errno;
    close(fd);
    errno = error;
    return wrote == (ssize_t)n;
}

bool hw_text_u64(const char *path, uint64_t *ret_value)
{
    char line[64];
    return hw_text_line(path, line, sizeof(line)) && str_u64(str_from(line), ret_value);
}

bool hw_text_find_u64(const char *text, const char *key, uint64_t *ret_value)
{
    size_t n_key = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, n_key) != 0 || (line[n_key] != ' ' && line[n_key] != ':'))
            continue;
        const char *p = line + n_key;
        p += strspn(p, ": \t");
        return str_u64((struct str){p, strspn(p, "0123456789")}, ret_value);
    }
    return false;
}

void hw_set_add(struct hw_set *set, unsigned number)
{
    if (number < HW_SET_BITS)
        set->words[number / 64] |= UINT64_C(1) << (number % 64);
}

bool hw_set_has(const struct hw_set *set, unsigned number)
{
    return number < HW_SET_BITS && (set->words[number / 64] >> (number % 64) & 1);
}

unsigned hw_set_count(const struct hw_set *set)
{
    unsigned n = 0;
    for (size_t i = 0; i < HW_SET_BITS / 64; i++)
        n += (unsigned)__builtin_popcountll(set->words[i]);
    return n;
}

void hw_set_intersect(struct hw_set *set, const struct hw_set *other)
{
    for (size_t i = 0; i < HW_SET_BITS / 64; i++)
        set->words[i] &= other->words[i];
}

bool hw_set_parse(struct str text, struct hw_set *ret_set)
{
    struct hw_set set = {0};
    struct str rest = str_trim(text);
    while (rest.n) {
        struct str range = str_cut(&rest, ',');
        struct str low = str_cut(&range, '-');
        uint64_t from, to;
        if (!str_u64(str_trim(low), &from))
            return false;
        to = from;
        if (range.n && !str_u64(str_trim(range), &to))
            return false;
        if (to >= HW_SET_BITS)
            to = HW_SET_BITS - 1;
        for (uint64_t i = from; i <= to; i++)
            hw_set_add(&set, (unsigned)i);
    }
    *ret_set = set;
    return true;
}

bool hw_set_read(const char *path, struct hw_set *ret_set)
{
    char text[8192];
    return hw_text_read(path, text, sizeof(text)) && hw_set_parse(str_from(text), ret_set);
}
