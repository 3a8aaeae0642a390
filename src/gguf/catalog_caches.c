/* Where models usually are: arriero's own folder, and those of other programs. Layer gguf; blocking; one
 * thread. Environment variables win over the usual places, as in those programs. */
#include "gguf/catalog_priv.h"

#include "base/json.h"
#include "os/file.h"

#include <string.h>

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* $XDG_CACHE_HOME or ~/.cache; malloc'd. */
static char *cache_home(const struct scan *s)
{
    const char *xdg = environment("XDG_CACHE_HOME");
    return xdg ? mem_strdup(xdg) : mem_printf("%s/.cache", s->home);
}

/* The folder that `make demo` and downloads fill. */
static void own_models(struct scan *s)
{
    const char *xdg = environment("XDG_DATA_HOME");
    auto_free char *data = xdg ? mem_strdup(xdg) : mem_printf("%s/.local/share", s->home);
    auto_free char *models = mem_printf("%s/arriero/models", data);
    scan_walk(s, models, "directory", false);
}

static void llama_cpp(struct scan *s)
{
    const char *own = environment("LLAMA_CACHE");
    auto_free char *cache = cache_home(s);
    auto_free char *usual = mem_printf("%s/llama.cpp", cache);
    if (own)
        scan_walk(s, own, "llama.cpp", true);
    scan_walk(s, usual, "llama.cpp", false);
}

static void huggingface(struct scan *s)
{
    static const char *const names[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"};
    for (size_t i = 0; i < TABLE_COUNT(names); i++) {
        const char *named = environment(names[i]);
        if (named) {
            scan_walk(s, named, "huggingface", true);
            return;
        }
    }
    const char *hf_home = environment("HF_HOME");
    auto_free char *cache = cache_home(s);
    auto_free char *hub = hf_home ? mem_printf("%s/hub", hf_home) : mem_printf("%s/huggingface/hub", cache);
    scan_walk(s, hub, "huggingface", false);
}

/* The models of one LM Studio home: where its settings say, and the usual folder. */
static void lmstudio_home(struct scan *s, const char *home)
{
    auto_free char *settings = mem_printf("%s/settings.json", home);
    auto_free char *models = mem_printf("%s/models", home);
    struct buf text = {0};
    yyjson_doc *doc = NULL;
    if (!file_read(settings, 0, &text, NULL) && !json_parse(buf_str(&text), settings, &doc, NULL)) {
        struct str folder = json_str(yyjson_doc_get_root(doc), "downloadsFolder", STR(""));
        auto_free char *path = mem_strndup(folder.p, folder.n);
        if (path[0] == '/')
            scan_walk(s, path, "lmstudio", true);
    }
    scan_walk(s, models, "lmstudio", false);
    yyjson_doc_free(doc);
    buf_release(&text);
}

static void lmstudio(struct scan *s)
{
    static const char *const homes[] = {".lmstudio", ".cache/lm-studio"};
    auto_free char *pointer = mem_printf("%s/.lmstudio-home-pointer", s->home);
    struct buf text = {0};
    if (!file_read(pointer, 4096, &text, NULL)) {
        struct str target = str_trim(buf_str(&text));
        auto_free char *home = mem_strndup(target.p, target.n);
        if (home[0] == '/')
            lmstudio_home(s, home);
    }
    for (size_t i = 0; i < TABLE_COUNT(homes); i++) {
        auto_free char *home = mem_printf("%s/%s", s->home, homes[i]);
        lmstudio_home(s, home);
    }
    buf_release(&text);
}

static void ollama(struct scan *s)
{
    static const char *const system_wide[] = {"/usr/share/ollama/.ollama/models",
                                              "/var/lib/ollama/.ollama/models", "/var/lib/ollama"};
    const char *named = environment("OLLAMA_MODELS");
    if (named) {
        scan_walk(s, named, "ollama", true);
        return;
    }
    auto_free char *usual = mem_printf("%s/.ollama/models", s->home);
    scan_walk(s, usual, "ollama", false);
    for (size_t i = 0; i < TABLE_COUNT(system_wide); i++)
        scan_walk(s, system_wide[i], "ollama", false);
}

void scan_usual_caches(struct scan *s)
{
    own_models(s);
    llama_cpp(s);
    huggingface(s);
    lmstudio(s);
    ollama(s);
}
