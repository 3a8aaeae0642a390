/* Hosts and origins: see guard.h. Layer proxy; no state; any thread. */
#include "proxy/guard.h"

#include <arpa/inet.h>
#include <string.h>

static bool is_address(struct str host)
{
    unsigned char address[16];
    char text[48];
    bool v6 = host.n > 1 && host.p[0] == '[' && host.p[host.n - 1] == ']';
    if (v6)
        host = (struct str){host.p + 1, host.n - 2};
    if (!host.n || host.n >= sizeof text)
        return false;
    memcpy(text, host.p, host.n);
    text[host.n] = '\0';
    return inet_pton(v6 ? AF_INET6 : AF_INET, text, address) == 1;
}

static struct str without_port(struct str host)
{
    size_t n = host.n;
    while (n && host.p[n - 1] >= '0' && host.p[n - 1] <= '9')
        n--;
    if (n && n <= host.n && host.p[n - 1] == ':')
        host.n = n - 1;
    return host;
}

static bool is_localhost(struct str name)
{
    static const char word[] = "localhost";
    size_t n = sizeof word - 1;
    if (name.n < n || !str_ieq((struct str){name.p + name.n - n, n}, STR("localhost")))
        return false;
    return name.n == n || name.p[name.n - n - 1] == '.';
}

bool guard_host(struct str host, struct str names)
{
    struct str name = without_port(host);
    if (is_address(name))
        return true;
    if (name.n && name.p[name.n - 1] == '.') /* the root, which may be written */
        name.n--;
    if (is_localhost(name))
        return true;
    while (names.n) {
        struct str one = str_trim(str_cut(&names, ','));
        if (one.n && (str_ieq(one, name) || str_eq(one, STR("*"))))
            return true;
    }
    return false;
}

/* What stands behind http:// or https://; empty for anything else. */
static struct str host_of(struct str origin)
{
    if (str_starts(origin, "http://"))
        return (struct str){origin.p + 7, origin.n - 7};
    if (str_starts(origin, "https://"))
        return (struct str){origin.p + 8, origin.n - 8};
    return (struct str){"", 0};
}

static bool is_loopback(struct str origin)
{
    struct str host = without_port(host_of(origin));
    return is_localhost(host) || str_eq(host, STR("127.0.0.1")) || str_eq(host, STR("[::1]"));
}

bool guard_origin(struct str origin, struct str allowed)
{
    while (origin.n && allowed.n) {
        struct str one = str_trim(str_cut(&allowed, ','));
        bool word = str_eq(one, STR("loopback")); /* which is no origin itself */
        if (word ? is_loopback(origin) : str_eq(one, STR("*")) || (one.n && str_ieq(one, origin)))
            return true;
    }
    return false;
}

bool guard_same_host(struct str origin, struct str host)
{
    struct str from = host_of(origin);
    return from.n && str_ieq(from, host);
}

bool guard_may_be_page(struct str site, struct str user_agent)
{
    if (site.n)
        return !str_eq(site, STR("same-origin")) && !str_eq(site, STR("none")); /* none: typed by the user */
    return str_starts(user_agent, "Mozilla/");
}
