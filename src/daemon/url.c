/* Addresses of servers elsewhere: see url.h. Layer daemon; pure. */
#include "daemon/url.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static enum rc refuse(struct err *err, struct str text, const char *why)
{
    /* a user's part may be a password: what stands before an @ is not repeated */
    ptrdiff_t at = str_find(text, STR("@"));
    struct str shown = at < 0 ? text : (struct str){text.p + at + 1, text.n - (size_t)at - 1};
    enum rc rc = err_set(err, RC_INVALID, "\"%.*s\" is no address of a server: %s",
                         (int)(shown.n < 120 ? shown.n : 120), shown.p ? shown.p : "", why);
    err_hint(err, "write it as https://HOST, with :PORT and a path where the server has them");
    return rc;
}

static bool all_of(struct str s, const char *also)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i], letter = ch | 0x20;
        bool fine = (letter >= 'a' && letter <= 'z') || (ch >= '0' && ch <= '9') || (ch && strchr(also, ch));
        if (!fine)
            return false;
    }
    return true;
}

static bool is_host(struct str host, bool v6)
{
    char text[64];
    struct in6_addr a;
    if (!v6)
        return host.n && all_of(host, ".-_") && host.p[0] != '.' && host.p[0] != '-';
    if (host.n >= sizeof text)
        return false;
    (void)snprintf(text, sizeof text, "%.*s", STR_ARG(host));
    return inet_pton(AF_INET6, text, &a) == 1;
}

enum rc url_parse(struct str text, struct url *ret, struct err *err)
{
    struct url u = {.tls = str_starts(text, "https://")};
    if (!u.tls && !str_starts(text, "http://"))
        return refuse(err, text, "it begins with neither https:// nor http://");
    struct str rest = {text.p + (u.tls ? 8 : 7), text.n - (u.tls ? 8 : 7)};
    size_t end = 0;
    while (end < rest.n && rest.p[end] != '/')
        end++;
    struct str authority = {rest.p, end}, path = {rest.p + end, rest.n - end}, host = authority;
    if (str_find(authority, STR("@")) >= 0)
        return refuse(err, text, "it names a user; keys come from key_env or key_file");
    bool v6 = str_starts(authority, "[");
    uint64_t port = u.tls ? 443 : 80;
    ptrdiff_t bracket = v6 ? str_find(authority, STR("]")) : 0;
    if (bracket < 0)
        return refuse(err, text, "its bracket is not closed");
    if (v6) {
        host = (struct str){authority.p + 1, (size_t)bracket - 1};
        authority = (struct str){authority.p + bracket + 1, authority.n - (size_t)bracket - 1};
    } else {
        host = str_cut(&authority, ':');
        authority = (struct str){host.p + host.n, end - host.n};
    }
    if (authority.n &&
        (authority.p[0] != ':' || !str_u64((struct str){authority.p + 1, authority.n - 1}, &port) || !port ||
         port > 65535))
        return refuse(err, text, "its port is no number from 1 to 65535");
    while (str_ends(path, "/"))
        path.n--;
    if (!is_host(host, v6) || host.n >= sizeof u.host)
        return refuse(err, text, "its host is no name");
    if (path.n >= sizeof u.path || !all_of(path, "/-._~%:+"))
        return refuse(err, text,
                      "its path is too long, or has a query or characters that are none of a path");
    u.port = (uint16_t)port;
    (void)snprintf(u.host, sizeof u.host, "%.*s", STR_ARG(host));
    (void)snprintf(u.path, sizeof u.path, "%.*s", STR_ARG(path));
    *ret = u;
    return RC_OK;
}

bool url_is_loopback(const struct url *u)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, u->host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    if (inet_pton(AF_INET6, u->host, &v6) == 1)
        return IN6_IS_ADDR_LOOPBACK(&v6);
    return str_ieq(str_from(u->host), STR("localhost"));
}
