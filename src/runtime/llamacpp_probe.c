/* What a llama-server binary can do, by asking it: see llamacpp_priv.h. Layer runtime; blocking. */
#include "os/run.h"
#include "runtime/llamacpp_priv.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define PROBE_TIMEOUT_MS 5000
#define PROBE_MAX_BYTES  (512u * 1024)

static bool word_char(char c)
{
    return isalnum((unsigned char)c) || c == '-' || c == '_';
}

static bool has_word(struct str text, const char *word)
{
    size_t n = strlen(word);
    bool edges = word[0] == '-' && word[1] == '-'; /* "--fit" must not be found in "--fit-target" */
    for (struct str rest = text;;) {
        ptrdiff_t at = str_find(rest, (struct str){word, n});
        if (at < 0)
            return false;
        const char *p = rest.p + at;
        bool before = p > text.p && word_char(p[-1]);
        bool after = p + n < text.p + text.n && word_char(p[n]);
        if (!edges || (!before && !after))
            return true;
        rest.n -= (size_t)at + n;
        rest.p = p + n;
    }
}

uint64_t llamacpp_flags(struct str help)
{
    static const char *const texts[] = {
#define X(name, text) text,
        LLAMACPP_OPTIONS(X)
#undef X
    };
    uint64_t flags = 0;
    for (size_t i = 0; i < TABLE_COUNT(texts); i++)
        if (has_word(help, texts[i]))
            flags |= 1ull << i;
    return flags;
}

/* "version: 0.7.0 (build 11669, commit X)" or, older, "version: 5620 (abc123)". */
void llamacpp_version(struct str text, struct runtime_caps *caps)
{
    ptrdiff_t at = str_find(text, STR("version: "));
    if (at < 0)
        return;
    struct str rest = {text.p + at + 9, text.n - (size_t)at - 9};
    struct str line = str_trim(str_cut(&rest, '\n'));
    struct str build = line;
    at = str_find(line, STR("build "));
    if (at >= 0)
        build = (struct str){line.p + at + 6, line.n - (size_t)at - 6};
    size_t digits = 0;
    while (digits < build.n && isdigit((unsigned char)build.p[digits]))
        digits++;
    uint64_t number = 0;
    if (digits > 0 && (at >= 0 || digits == build.n || build.p[digits] == ' ') &&
        str_u64((struct str){build.p, digits}, &number) && number <= UINT32_MAX)
        caps->build = (uint32_t)number;
    ptrdiff_t comma = str_find(line, STR(", commit"));
    if (comma >= 0)
        snprintf(caps->version, sizeof caps->version, "%.*s)", (int)comma, line.p);
    else
        snprintf(caps->version, sizeof caps->version, "%.*s", STR_ARG(line));
}

static bool is_device_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!isgraph((unsigned char)s.p[i]))
            return false;
    return s.n > 0;
}

/* "  CUDA0: NVIDIA GeForce RTX 4090 (24080 MiB, 23500 MiB free)" */
static bool device_line(struct str line, struct runtime_caps *caps)
{
    line = str_trim(line);
    if (!str_ends(line, " MiB free)") || caps->n_devices == TABLE_COUNT(caps->devices))
        return false;
    struct str rest = line, name = str_cut(&rest, ':');
    size_t open = rest.n;
    while (open > 0 && rest.p[open - 1] != '(')
        open--;
    if (open == 0 || !is_device_name(name))
        return false;
    struct str description = str_trim((struct str){rest.p, open - 1});
    struct str sizes = {rest.p + open, rest.n - open - strlen(" MiB free)")};
    struct str total = str_cut(&sizes, ' ');
    uint64_t total_mib, free_mib;
    while (sizes.n > 0 && !isdigit((unsigned char)sizes.p[0]))
        sizes.p++, sizes.n--;
    if (!str_u64(total, &total_mib) || !str_u64(sizes, &free_mib) || total_mib > UINT64_MAX / MIB ||
        free_mib > UINT64_MAX / MIB)
        return false;
    size_t i = caps->n_devices++;
    snprintf(caps->devices[i].name, sizeof caps->devices[i].name, "%.*s", STR_ARG(name));
    snprintf(caps->devices[i].description, sizeof caps->devices[i].description, "%.*s", STR_ARG(description));
    caps->devices[i].total_bytes = total_mib * MIB;
    caps->devices[i].free_bytes = free_mib * MIB;
    return true;
}

void llamacpp_devices(struct str text, struct runtime_caps *caps)
{
    ptrdiff_t at = str_find(text, STR("Available devices:"));
    if (at < 0)
        return;
    text = (struct str){text.p + at, text.n - (size_t)at};
    while (text.n > 0)
        (void)device_line(str_cut(&text, '\n'), caps);
}

static enum rc ask(const char *binary, const char *option, struct buf *out, struct err *err)
{
    const char *argv[] = {binary, option, NULL};
    const char *env[LLAMACPP_ENV_MAX];
    int status = 0;
    buf_clear(out);
    if (!llamacpp_env(NULL, env, LLAMACPP_ENV_MAX))
        return err_set(err, RC_LIMIT, "the environment has more than %d variables", LLAMACPP_ENV_MAX);
    enum rc rc = run_capture(argv, env, PROBE_TIMEOUT_MS, PROBE_MAX_BYTES, out, &status, err);
    if (rc != RC_OK)
        return rc;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return RC_OK;
    struct err why;
    (void)llamacpp_classify(status, buf_str(out), &why);
    rc = err_set(err, RC_BACKEND, "%s %s failed: %s", binary, option, why.message);
    err_hint(err, "%s", why.hint[0] ? why.hint : "run it by hand to see what it says");
    return rc;
}

enum rc llamacpp_probe(const char *binary, struct runtime_caps *ret_caps, struct err *err)
{
    struct runtime_caps caps = {0};
    struct buf out = {0};
    if (strlen(binary) >= sizeof caps.binary)
        return err_set(err, RC_LIMIT, "the path of llama-server is longer than %zu bytes",
                       sizeof caps.binary - 1);
    snprintf(caps.binary, sizeof caps.binary, "%s", binary);
    enum rc rc = ask(binary, "--version", &out, err);
    if (rc != RC_OK)
        goto done;
    llamacpp_version(buf_str(&out), &caps);
    rc = ask(binary, "--help", &out, err);
    if (rc != RC_OK)
        goto done;
    caps.flags = llamacpp_flags(buf_str(&out));
    caps.rpc = caps.flags & LLC_RPC;
    if (str_find(buf_str(&out), STR("--ctx-size")) < 0) {
        rc = err_set(err, RC_UNSUPPORTED, "%s is no llama-server: its --help names no --ctx-size", binary);
        err_hint(err, "point the setting at llama.cpp's llama-server");
        goto done;
    }
    /* Builds of before --list-devices offload to nothing that could be planned for. */
    if (has_word(buf_str(&out), "--list-devices")) {
        rc = ask(binary, "--list-devices", &out, err);
        if (rc != RC_OK)
            goto done;
        llamacpp_devices(buf_str(&out), &caps);
    }
    *ret_caps = caps;
done:
    buf_release(&out);
    return rc;
}
