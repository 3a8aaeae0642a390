/* Talking to the daemon: see control.h. */
#include "cli/control.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define DEFAULT_URL     "http://127.0.0.1:11435"
#define STATUS_QUESTION 3000u /* ms for asking the control socket where the data plane is */

static enum rc exchange(const struct cli_call *call, struct client_request *r, const char *path,
                        yyjson_doc **ret_doc, struct err *err)
{
    struct client_address address;
    enum rc rc = client_address_control(call->socket, &address, err);
    if (rc != RC_OK)
        return rc;
    auto_free char *full = mem_printf(CONTROL_API "%s", path);
    r->path = full;
    r->cancel_fd = -1;
    return client_json(&address, r, ret_doc, err);
}

enum rc control_get(const struct cli_call *call, const char *path, yyjson_doc **ret_doc, struct err *err)
{
    struct client_request r = {.method = "GET", .timeout_ms = CLIENT_TIMEOUT_MS};
    return exchange(call, &r, path, ret_doc, err);
}

enum rc control_post(const struct cli_call *call, const char *path, yyjson_mut_doc *body, uint32_t timeout_ms,
                     yyjson_doc **ret_doc, struct err *err)
{
    struct buf text = {0};
    enum rc rc = json_write(body, false, &text, err);
    yyjson_mut_doc_free(body);
    if (rc == RC_OK) {
        struct client_request r = {.method = "POST", .body = buf_str(&text), .timeout_ms = timeout_ms};
        rc = exchange(call, &r, path, ret_doc, err);
    }
    buf_release(&text);
    return rc;
}

const char *control_api_path(const struct client_address *a, const char *path)
{
    return str_ends(str_from(a->base), "/v1") ? path + 3 : path;
}

yyjson_mut_doc *control_body(const char *model, yyjson_mut_val **ret_root)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_strcpy(doc, root, "model", model);
    *ret_root = root;
    return doc;
}

int control_print(yyjson_doc *doc)
{
    yyjson_mut_doc *copy = yyjson_doc_mut_copy(doc, NULL);
    yyjson_doc_free(doc);
    return cli_print_json(copy);
}

yyjson_val *control_instance(yyjson_val *instances, struct str name)
{
    size_t i, n;
    yyjson_val *v, *stopped = NULL;
    yyjson_arr_foreach(instances, i, n, v)
    {
        if (!str_eq(json_str(v, "model", STR("")), name) && !str_eq(json_str(v, "id", STR("")), name))
            continue;
        struct str state = json_str(v, "state", STR(""));
        if (!str_eq_c(state, "stopped") && !str_eq_c(state, "failed"))
            return v;
        stopped = v;
    }
    return stopped;
}

void control_devices(yyjson_val *instance, struct buf *out)
{
    size_t i, n, shown = 0;
    yyjson_val *d, *devices = yyjson_obj_get(instance, "devices");
    yyjson_arr_foreach(devices, i, n, d)
    {
        char size[24];
        struct str name = json_str(d, "name", STR("?"));
        uint64_t bytes = json_u64(yyjson_obj_get(d, "measured"), "total_bytes", 0);
        if (!bytes)
            bytes = json_u64(d, "predicted_bytes", 0);
        if (!bytes)
            continue;
        buf_printf(out, "%s%.*s %s", shown++ ? ", " : "", STR_ARG(name),
                   str_human_bytes(bytes, size, sizeof size));
    }
    if (!shown)
        buf_puts(out, "-");
}

void control_learned(yyjson_val *instance, struct buf *out)
{
    size_t i, n;
    yyjson_val *d, *devices = yyjson_obj_get(instance, "devices");
    yyjson_arr_foreach(devices, i, n, d)
    {
        char spread[24];
        uint64_t loads = json_u64(d, "overhead_loads", 0);
        if (loads)
            buf_printf(out, ", %.*s ± %s, from %llu load%s", STR_ARG(json_str(d, "name", STR("?"))),
                       str_human_bytes(json_u64(d, "overhead_spread_bytes", 0), spread, sizeof spread),
                       (unsigned long long)loads, loads == 1 ? "" : "s");
    }
}

char *control_duration(uint64_t ms, char *out, size_t cap)
{
    unsigned long long s = ms / 1000, m = s / 60, h = m / 60;
    if (ms < 1000)
        snprintf(out, cap, "%u ms", (unsigned)ms);
    else if (s < 10)
        snprintf(out, cap, "%llu.%u s", s, (unsigned)(ms % 1000 / 100));
    else if (s < 60)
        snprintf(out, cap, "%llu s", s);
    else if (m < 60)
        snprintf(out, cap, "%llum %02llus", m, s % 60);
    else if (h < 48)
        snprintf(out, cap, "%lluh %02llum", h, m % 60);
    else
        snprintf(out, cap, "%llud %lluh", h / 24, h % 24);
    return out;
}

char *control_time(struct str rfc3339, char *out, size_t cap)
{
    char text[40];
    struct tm utc = {0}, local;
    snprintf(text, sizeof text, "%.*s", (int)(rfc3339.n < sizeof text ? rfc3339.n : sizeof text - 1),
             rfc3339.p ? rfc3339.p : "");
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &utc);
    time_t t = end && strchr(end, 'Z') ? timegm(&utc) : -1;
    if (t == -1 || !localtime_r(&t, &local) || !strftime(out, cap, "%Y-%m-%d %H:%M:%S", &local))
        snprintf(out, cap, "%s", text);
    return out;
}

static enum rc door_of_url(const struct control_door *door, struct client_address *ret_address,
                           struct err *err)
{
    const char *usual = getenv("ARRIERO_CACERT");
    struct client_address a;
    enum rc rc = client_address_url(door->url, &a, err);
    if (rc != RC_OK)
        return rc;
    if (door->ca_file && door->insecure) {
        rc = err_set(err, RC_INVALID, "--cacert says whom to trust, and --insecure to trust anybody");
        err_hint(err, "leave --insecure out");
        return rc;
    }
    if (!a.tls && (door->ca_file || door->insecure)) {
        rc = err_set(err, RC_INVALID, "%s is not encrypted: --%s has nothing to do there", door->url,
                     door->ca_file ? "cacert" : "insecure");
        err_hint(err, "write https:// if the daemon has a certificate (tls.cert)");
        return rc;
    }
    a.unchecked = door->insecure;
    a.ca_file = door->ca_file ? door->ca_file : usual && usual[0] ? usual : NULL;
    if (a.unchecked) {
        a.ca_file = NULL;
        (void)fprintf(stderr, "arriero: warning: the certificate of %s is not checked\n", door->url);
    }
    *ret_address = a;
    return RC_OK;
}

/* As the daemon tells its addresses; one with TLS would have to be trusted first, so it is not chosen. */
static enum rc door_of_daemon(const struct client_address *control, yyjson_val *listen,
                              struct client_address *ret_address, struct err *err)
{
    size_t i, n;
    yyjson_val *v;
    const char *told = NULL;
    yyjson_arr_foreach(listen, i, n, v) if (!told && !str_starts(str_from(yyjson_get_str(v)), "https://"))
        told = yyjson_get_str(v);
    if (!told && n > 0) { /* nothing but TLS: the control socket answers clients, too */
        *ret_address = *control;
        return RC_OK;
    }
    enum rc rc = client_address_url(told ? told : DEFAULT_URL, ret_address, err);
    /* a daemon that listens on every address is reached on loopback */
    if (rc == RC_OK && strcmp(ret_address->host, "0.0.0.0") == 0)
        snprintf(ret_address->host, sizeof ret_address->host, "127.0.0.1");
    if (rc == RC_OK && strcmp(ret_address->host, "::") == 0)
        snprintf(ret_address->host, sizeof ret_address->host, "::1");
    return rc;
}

enum rc control_door(const struct cli_call *call, const struct control_door *door,
                     struct client_address *ret_address, struct err *err)
{
    struct client_address control;
    yyjson_doc *doc;
    if (door && door->url)
        return door_of_url(door, ret_address, err);
    struct client_request r = {
        .method = "GET", .path = CONTROL_API "/status", .timeout_ms = STATUS_QUESTION, .cancel_fd = -1};
    if (client_address_control(call->socket, &control, err) != RC_OK ||
        client_json(&control, &r, &doc, err) != RC_OK)
        return client_address_url(DEFAULT_URL, ret_address, err);
    enum rc rc =
        door_of_daemon(&control, yyjson_obj_get(yyjson_doc_get_root(doc), "listen"), ret_address, err);
    yyjson_doc_free(doc);
    return rc;
}
