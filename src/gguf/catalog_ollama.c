/* Ollama's store: manifests/HOST/NAMESPACE/MODEL/TAG is a JSON manifest whose layers name files in blobs/ by
 * digest; newer versions write manifests-v2/ beside it, with the same shape. Layer gguf; blocking; one
 * thread. */
#include "gguf/catalog_priv.h"

#include "base/json.h"
#include "os/file.h"

#include <ctype.h>
#include <string.h>

#define MANIFEST_MAX_BYTES (256u * 1024u)
#define LAYER_MODEL        "application/vnd.ollama.image.model"
#define LAYER_PROJECTOR    "application/vnd.ollama.image.projector"
#define LAYER_ADAPTER      "application/vnd.ollama.image.adapter"

/* "sha256:HEX" → "DIR/blobs/sha256-HEX"; NULL for anything else, so that no path leads out of the folder. */
static char *blob_path(const char *dir, struct str digest)
{
    if (digest.n != 7 + 64 || memcmp(digest.p, "sha256", 6) || (digest.p[6] != ':' && digest.p[6] != '-'))
        return NULL;
    for (size_t i = 7; i < digest.n; i++)
        if (!isxdigit((unsigned char)digest.p[i]))
            return NULL;
    return mem_printf("%s/blobs/sha256-%.*s", dir, 64, digest.p + 7);
}

/* Media types may carry parameters after a semicolon. */
static bool is_layer(yyjson_val *layer, const char *media_type)
{
    struct str type = json_str(layer, "mediaType", STR(""));
    return str_eq_c(str_trim(str_cut(&type, ';')), media_type);
}

/* The name that `ollama list` shows: the default registry and its namespace "library" are left out. */
static char *display_name(const char *host, const char *space, const char *model, const char *tag)
{
    bool usual = !strcmp(host, "registry.ollama.ai") || !strcmp(host, "ollama.com");
    auto_free char *raw = NULL;
    if (usual && !strcmp(space, "library"))
        raw = mem_printf("%s:%s", model, tag);
    else if (usual)
        raw = mem_printf("%s/%s:%s", space, model, tag);
    else
        raw = mem_printf("%s/%s/%s:%s", host, space, model, tag);
    return text_clean(str_from(raw));
}

static void read_layers(struct scan *s, const char *dir, const char *id, yyjson_val *layers)
{
    struct candidate c = {.source = "ollama"};
    bool adapted = false;
    size_t i, n;
    yyjson_val *layer;
    yyjson_arr_foreach(layers, i, n, layer)
    {
        struct str digest = json_str(layer, "digest", STR(""));
        if (is_layer(layer, LAYER_MODEL) && !c.path)
            c.path = blob_path(dir, digest);
        else if (is_layer(layer, LAYER_PROJECTOR) && !c.mmproj)
            c.mmproj = blob_path(dir, digest);
        else if (is_layer(layer, LAYER_ADAPTER))
            adapted = true;
    }
    if (!c.path) { /* a model in the cloud, or one of another format */
        free(c.mmproj);
        return;
    }
    if (adapted) {
        struct err *note = scan_note(s);
        (void)err_set(note, RC_UNSUPPORTED, "%s has an adapter, which is not applied", id);
        err_hint(note, "merge the adapter into the model, or run this one with Ollama");
    }
    if (c.mmproj && !file_exists(c.mmproj)) {
        free(c.mmproj);
        c.mmproj = NULL;
    }
    c.id = mem_strdup(id);
    scan_add(s, &c);
}

static void read_manifest(struct scan *s, const char *dir, const char *path, const char *id)
{
    struct buf text = {0};
    struct err err = {0};
    yyjson_doc *doc = NULL;
    enum rc rc = file_read(path, MANIFEST_MAX_BYTES, &text, &err);
    if (!rc)
        rc = json_parse(buf_str(&text), path, &doc, &err);
    if (rc)
        *scan_note(s) = err;
    else
        read_layers(s, dir, id, yyjson_obj_get(yyjson_doc_get_root(doc), "layers"));
    yyjson_doc_free(doc);
    buf_release(&text);
}

/* Goes down the four levels host, namespace, model, tag; parts[0 … level-1] are the names so far. */
static void walk_manifests(struct scan *s, const char *dir, const char *at, const char *parts[4],
                           unsigned level)
{
    size_t n = 0;
    int number;
    char **names = scan_names(s, at, &n, &number);
    for (size_t i = 0; i < n; i++) {
        auto_free char *path = mem_printf("%s/%s", at, names[i]);
        struct stat st;
        parts[level] = names[i];
        if (stat(path, &st))
            continue;
        if (level < 3 && S_ISDIR(st.st_mode)) {
            walk_manifests(s, dir, path, parts, level + 1);
        } else if (level == 3 && S_ISREG(st.st_mode)) {
            auto_free char *id = display_name(parts[0], parts[1], parts[2], parts[3]);
            read_manifest(s, dir, path, id);
        }
    }
    scan_names_free(names, n);
}

void scan_ollama(struct scan *s, const char *dir)
{
    static const char *const folders[] = {"manifests-v2", "manifests"};
    for (size_t i = 0; i < TABLE_COUNT(folders); i++) {
        const char *parts[4];
        auto_free char *at = mem_printf("%s/%s", dir, folders[i]);
        walk_manifests(s, dir, at, parts, 0);
    }
}
