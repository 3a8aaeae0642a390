/* Opens models: reads the file or the parts, checks them against each other and derives the facts of struct
 * model. Layer gguf; blocking; any thread. A model is built in one thread and never changes afterwards. */
#include "gguf/model_priv.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct builder {
    struct model *m;
    struct model_priv *priv;
    struct err *err;
    struct gguf_part first;
    struct tensor *tensors; /* of all parts */
    struct model_file *files;
};

static enum rc no_memory(struct err *err)
{
    return err_set(err, RC_NOMEM, "no memory for the model's tensor table");
}

static const char *keep_clean(struct builder *b, struct str raw)
{
    char *clean = text_clean(raw);
    const char *kept = arena_strndup(&b->priv->arena, clean, strlen(clean));
    free(clean);
    return kept;
}

static struct str kv_name(const void *items, uint32_t i)
{
    return ((const struct gguf_kv *)items)[i].key;
}

static struct str tensor_name(const void *items, uint32_t i)
{
    return str_from(((const struct tensor *)items)[i].name);
}

static enum rc index_keys(struct builder *b)
{
    struct model_priv *priv = b->priv;
    priv->kvs = b->first.kvs;
    priv->n_kvs = b->first.n_kvs;
    if (!name_index_init(&priv->keys, &priv->arena, priv->n_kvs, kv_name, priv->kvs))
        return no_memory(b->err);
    for (uint32_t i = 0; i < priv->n_kvs; i++)
        if (!name_index_add(&priv->keys, i))
            return err_set(b->err, RC_INVALID, "metadata key %.200s is there twice", priv->kvs[i].key.p);
    return RC_OK;
}

static enum rc index_tensors(struct builder *b)
{
    struct name_index *ix = &b->priv->tensors;
    if (!name_index_init(ix, &b->priv->arena, b->m->n_tensors, tensor_name, b->tensors))
        return no_memory(b->err);
    for (uint32_t i = 0; i < b->m->n_tensors; i++)
        if (!name_index_add(ix, i))
            return err_set(b->err, RC_INVALID, "tensor %s is there twice", b->tensors[i].name);
    return RC_OK;
}

/* A number that must fit 32 bits; the largest element where the key holds an array; 0 where it is absent. */
static enum rc fact_u32(struct builder *b, struct str key, uint32_t *ret_value)
{
    const struct gguf_kv *kv = model_kv(b->m, key);
    uint64_t value = 0, element;
    *ret_value = 0;
    if (!kv)
        return RC_OK;
    for (uint64_t i = 0; i < kv->n && kv->data; i++) {
        if (!gguf_kv_u64(kv, i, &element)) {
            value = UINT64_MAX;
            break;
        }
        value = element > value ? element : value;
    }
    if (!kv->data || value > UINT32_MAX)
        return err_set(b->err, RC_INVALID, "metadata key %.200s is no whole number of 32 bits", kv->key.p);
    *ret_value = (uint32_t)value;
    return RC_OK;
}

static enum rc arch_fact_u32(struct builder *b, const char *suffix, uint32_t *ret_value)
{
    char key[128];
    int n = snprintf(key, sizeof key, "%s.%s", b->m->architecture, suffix);
    return fact_u32(b, (struct str){key, (size_t)n}, ret_value);
}

static bool is_architecture(struct str s)
{
    if (s.n == 0 || s.n > 64)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!isalnum((unsigned char)s.p[i]) && !strchr("_-.", s.p[i]))
            return false;
    return true;
}

static enum rc identity(struct builder *b)
{
    struct model *m = b->m;
    struct str text;
    if (!model_key_str(m, "general.architecture", &text) || !is_architecture(text)) {
        enum rc rc = err_set(b->err, RC_INVALID, "the key general.architecture is missing or no plain word");
        err_hint(b->err, "only models made for llama.cpp can be used");
        return rc;
    }
    m->architecture = text.p;
    if (!model_key_str(m, "general.name", &text) || text.n == 0) {
        const char *slash = strrchr(m->path, '/');
        text = str_from(slash ? slash + 1 : m->path);
        if (str_ends(text, ".gguf"))
            text.n -= 5;
    }
    m->name = keep_clean(b, text);
    m->size_label = model_key_str(m, "general.size_label", &text) ? keep_clean(b, text) : "";
    m->type = model_key_str(m, "general.type", &text) ? keep_clean(b, text) : "";
    m->has_chat_template = model_kv(m, STR("tokenizer.chat_template")) != NULL;
    return m->name && m->size_label && m->type ? RC_OK : no_memory(b->err);
}

/* Projectors, adapters and the like have no blocks of the kind that block_count counts. */
static bool needs_layers(const struct model *m)
{
    static const char *const without[] = {"clip", "controlvector", "imatrix"};
    for (size_t i = 0; i < TABLE_COUNT(without); i++)
        if (!strcmp(m->architecture, without[i]))
            return false;
    return !*m->type || !strcmp(m->type, "model");
}

static enum rc numbers(struct builder *b)
{
    struct model *m = b->m;
    uint64_t n_tokens;
    enum rc rc;
    if ((rc = arch_fact_u32(b, "block_count", &m->n_layer)) ||
        (rc = arch_fact_u32(b, "context_length", &m->context_train)) ||
        (rc = arch_fact_u32(b, "embedding_length", &m->n_embd)) ||
        (rc = arch_fact_u32(b, "expert_count", &m->n_expert)) ||
        (rc = arch_fact_u32(b, "expert_used_count", &m->n_expert_used)) ||
        (rc = arch_fact_u32(b, "vocab_size", &m->n_vocab)))
        return rc;
    if (model_key_array_n(m, "tokenizer.ggml.tokens", &n_tokens) && n_tokens <= UINT32_MAX)
        m->n_vocab = (uint32_t)n_tokens;
    if (m->n_layer == 0 && needs_layers(m)) {
        rc = err_set(b->err, RC_INVALID, "the key %s.block_count is missing or zero", m->architecture);
        err_hint(b->err, "the file is damaged, or no language model");
        return rc;
    }
    if (m->n_layer > MODEL_MAX_LAYERS)
        return err_set(b->err, RC_LIMIT, "%s.block_count is %u (%u at most)", m->architecture, m->n_layer,
                       MODEL_MAX_LAYERS);
    return RC_OK;
}

static enum rc sum_up(struct builder *b)
{
    struct model *m = b->m;
    struct model_layer *layers = arena_array(&b->priv->arena, m->n_layer, sizeof *layers);
    if (!layers)
        return no_memory(b->err);
    m->layers = layers;
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        struct tensor *t = &b->tensors[i];
        enum tensor_class cls;
        tensor_classify(str_from(t->name), m->n_layer, &t->layer, &cls);
        t->cls = (uint8_t)cls;
        uint64_t elements = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; /* checked by the reader */
        if (__builtin_add_overflow(m->tensor_bytes, t->bytes, &m->tensor_bytes) ||
            __builtin_add_overflow(m->parameters, elements, &m->parameters))
            return err_set(b->err, RC_INVALID,
                           "the tensors up to %s have more elements than 64 bits can count", t->name);
        m->class_bytes[cls] += t->bytes;
        if (t->layer >= 0) {
            layers[t->layer].bytes[cls] += t->bytes;
            layers[t->layer].total_bytes += t->bytes;
        }
    }
    return RC_OK;
}

/* The file type's word; else that of the tensor type with most bytes. */
static enum rc quantization(struct builder *b)
{
    struct model *m = b->m;
    uint64_t file_type, bytes[GGML_TYPE_LIMIT] = {0};
    if (model_key_u64(m, "general.file_type", &file_type) &&
        (m->quantization = model_file_type_word(file_type)))
        return RC_OK;
    uint32_t most = 0;
    for (uint32_t i = 0; i < m->n_tensors; i++)
        bytes[b->tensors[i].type] += b->tensors[i].bytes;
    for (uint32_t i = 1; i < TABLE_COUNT(bytes); i++)
        if (bytes[i] > bytes[most])
            most = i;
    char *word = arena_printf(&b->priv->arena, "%s", m->n_tensors ? ggml_type_info(most)->word : "");
    if (!word)
        return no_memory(b->err);
    for (char *p = word; *p; p++)
        *p = (char)toupper((unsigned char)*p);
    m->quantization = word;
    return RC_OK;
}

static enum rc derive(struct builder *b)
{
    enum rc rc;
    if ((rc = identity(b)) || (rc = numbers(b)) || (rc = index_tensors(b)) || (rc = sum_up(b)))
        return rc;
    return quantization(b);
}

static bool begin(struct builder *b, const char *path, struct err *err)
{
    struct model *m = mem_new(struct model);
    m->priv = mem_new(struct model_priv);
    m->priv->arena.cap_bytes = MODEL_MAX_MEMORY;
    atomic_init(&m->priv->refs, 1);
    *b = (struct builder){.m = m, .priv = m->priv, .err = err};
    m->path = arena_strndup(&m->priv->arena, path, strlen(path));
    return m->path != NULL;
}

static enum rc note_file(struct builder *b, uint32_t i, const char *path, const struct gguf_source *src)
{
    if (!gguf_source_unchanged(src)) {
        enum rc rc = err_set(b->err, RC_TRUNCATED, "the file changed while it was read");
        err_hint(b->err, "wait until its download or copy has ended");
        return rc;
    }
    const char *kept = arena_strndup(&b->priv->arena, path, strlen(path));
    if (!kept)
        return no_memory(b->err);
    b->files[i] = (struct model_file){kept, src->size, src->dev, src->ino, src->mtime_ns};
    if (__builtin_add_overflow(b->m->file_bytes, src->size, &b->m->file_bytes))
        return err_set(b->err, RC_INVALID, "the parts are too large together");
    if (src->mtime_ns > b->m->mtime_ns)
        b->m->mtime_ns = src->mtime_ns;
    return RC_OK;
}

/* Reads part 1, or the only file; leaves the number of parts in m->n_files. */
static enum rc read_first(struct builder *b, const struct gguf_source *src, uint32_t *ret_no)
{
    struct model *m = b->m;
    uint64_t count = 1, no = 0;
    enum rc rc = gguf_read(src, &b->priv->arena, &b->first, b->err);
    if (rc || (rc = index_keys(b)))
        return rc;
    if (model_key_u64(m, "split.count", &count) && count > MODEL_MAX_FILES)
        return err_set(b->err, RC_LIMIT, "split.count is %llu (%d at most)", (unsigned long long)count,
                       MODEL_MAX_FILES);
    m->n_files = count > 1 ? (uint32_t)count : 1;
    if (m->n_files > 1 && (!model_key_u64(m, "split.no", &no) || no >= count))
        return err_set(b->err, RC_INVALID, "split.no does not fit split.count %llu",
                       (unsigned long long)count);
    *ret_no = (uint32_t)no;
    b->files = arena_array(&b->priv->arena, m->n_files, sizeof *b->files);
    b->priv->files = b->files;
    if (!b->files)
        return no_memory(b->err);
    return note_file(b, 0, m->path, src);
}

static bool part_key(const struct gguf_part *part, const char *key, uint64_t *ret_value)
{
    for (uint32_t i = 0; i < part->n_kvs; i++)
        if (str_eq_c(part->kvs[i].key, key))
            return !part->kvs[i].array && gguf_kv_u64(&part->kvs[i], 0, ret_value);
    return false;
}

static enum rc read_part(struct builder *b, uint32_t i, const char *path, struct gguf_part *ret_part)
{
    struct gguf_source src;
    struct gguf_part part;
    uint64_t no, count;
    enum rc rc = gguf_source_open(path, &src, b->err);
    if (rc) {
        if (errno == ENOENT)
            err_hint(b->err, "the model has %u parts: all must be in one folder", b->m->n_files);
        err_prefix(b->err, "part %u of %u", i + 1, b->m->n_files);
        return rc;
    }
    rc = gguf_read(&src, &b->priv->arena, &part, b->err);
    if (!rc && (!part_key(&part, "split.no", &no) || !part_key(&part, "split.count", &count) || no != i ||
                count != b->m->n_files))
        rc = err_set(b->err, RC_INVALID, "not part %u of %u of this model", i + 1, b->m->n_files);
    if (!rc)
        rc = note_file(b, i, path, &src);
    gguf_source_close(&src);
    if (rc)
        err_prefix(b->err, "part %u of %u", i + 1, b->m->n_files);
    else
        *ret_part = part;
    return rc;
}

static enum rc append_tensors(struct builder *b, const struct gguf_part *parts)
{
    struct model *m = b->m;
    uint64_t total = 0, claimed;
    for (uint32_t i = 0; i < m->n_files; i++)
        total += parts[i].n_tensors;
    if (total > GGUF_MAX_TENSORS)
        return err_set(b->err, RC_LIMIT, "the parts have %llu tensors (%u at most)",
                       (unsigned long long)total, GGUF_MAX_TENSORS);
    if (m->n_files > 1 && model_key_u64(m, "split.tensors.count", &claimed) && claimed != total)
        return err_set(b->err, RC_INVALID,
                       "the parts have %llu tensors together, but split.tensors.count is %llu",
                       (unsigned long long)total, (unsigned long long)claimed);
    if (m->n_files == 1) {
        b->tensors = parts[0].tensors;
    } else {
        b->tensors = arena_array(&b->priv->arena, (size_t)total, sizeof *b->tensors);
        if (!b->tensors)
            return no_memory(b->err);
        struct tensor *to = b->tensors;
        for (uint32_t i = 0; i < m->n_files; i++)
            for (uint32_t k = 0; k < parts[i].n_tensors; k++) {
                *to = parts[i].tensors[k];
                to++->file = (uint16_t)i;
            }
    }
    m->tensors = b->tensors;
    m->n_tensors = (uint32_t)total;
    return RC_OK;
}

static enum rc read_others(struct builder *b)
{
    struct model *m = b->m;
    size_t prefix = 0;
    uint32_t no, count;
    struct gguf_part *parts = mem_calloc(m->n_files, sizeof *parts);
    enum rc rc = RC_OK;
    parts[0] = b->first;
    if (m->n_files > 1 && (!split_name_parse(m->path, &prefix, &no, &count) || count != m->n_files)) {
        rc = err_set(b->err, RC_INVALID, "one of %u parts, but the file's name does not say which",
                     m->n_files);
        err_hint(b->err, "give the parts their names back: NAME-00001-of-%05u.gguf", m->n_files);
    }
    for (uint32_t i = 1; !rc && i < m->n_files; i++) {
        auto_free char *path = mem_printf("%.*s-%05u-of-%05u.gguf", (int)prefix, m->path, i + 1, m->n_files);
        rc = read_part(b, i, path, &parts[i]);
    }
    if (!rc)
        rc = append_tensors(b, parts);
    free(parts);
    return rc;
}

/* Ends a failed opening: names the file, and gives a hint where the failure has none of its own. */
static enum rc give_up(struct builder *b, const char *path, enum rc rc)
{
    err_prefix(b->err, "%s", path);
    if (b->err && !b->err->hint[0] && rc == RC_INVALID)
        err_hint(b->err,
                 "the file is damaged, or was not written by llama.cpp's tools: fetch or convert it again");
    text_clean_err(b->err);
    model_unref(b->m);
    return rc;
}

enum rc model_from_source(const struct gguf_source *src, const char *path, struct model **ret_model,
                          struct err *err)
{
    struct builder b;
    uint32_t no = 0;
    enum rc rc = begin(&b, path, err) ? read_first(&b, src, &no) : no_memory(err);
    if (!rc && b.m->n_files > 1)
        rc = err_set(err, RC_INVALID, "one of %u parts of a split model", b.m->n_files);
    if (!rc)
        rc = read_others(&b);
    if (!rc)
        rc = derive(&b);
    if (rc)
        return give_up(&b, path, rc);
    *ret_model = b.m;
    return RC_OK;
}

/* *ret_first: the path of part 1 when another part was opened (nothing else is returned then); to be freed.
 */
static enum rc open_at(const char *path, struct model **ret_model, char **ret_first, struct err *err)
{
    struct gguf_source src;
    struct builder b;
    uint32_t no = 0, name_no, name_count;
    size_t prefix;
    enum rc rc = gguf_source_open(path, &src, err);
    if (rc) {
        text_clean_err(err);
        return rc;
    }
    rc = begin(&b, path, err) ? read_first(&b, &src, &no) : no_memory(err);
    gguf_source_close(&src);
    if (!rc && no > 0 && ret_first && split_name_parse(path, &prefix, &name_no, &name_count) &&
        name_count == b.m->n_files) {
        *ret_first = mem_printf("%.*s-00001-of-%05u.gguf", (int)prefix, path, name_count);
        model_unref(b.m);
        return RC_OK;
    }
    if (!rc && no > 0)
        rc = err_set(err, RC_INVALID, "part %u of %u where part 1 was expected", no + 1, b.m->n_files);
    if (!rc)
        rc = read_others(&b);
    if (!rc)
        rc = derive(&b);
    if (rc)
        return give_up(&b, path, rc);
    *ret_model = b.m;
    return RC_OK;
}

static char *absolute(const char *path)
{
    if (path[0] == '/')
        return mem_strdup(path);
    auto_free char *cwd = getcwd(NULL, 0);
    return mem_printf("%s/%s", cwd ? cwd : ".", path);
}

enum rc model_open(const char *path, struct model **ret_model, struct err *err)
{
    auto_free char *full = absolute(path);
    auto_free char *first = NULL;
    enum rc rc = open_at(full, ret_model, &first, err);
    if (rc || !first)
        return rc;
    rc = open_at(first, ret_model, NULL, err);
    if (rc)
        err_prefix(err, "part 1 of the model in %s", full);
    text_clean_err(rc ? err : NULL);
    return rc;
}

struct model *model_ref(struct model *m)
{
    atomic_fetch_add_explicit(&m->priv->refs, 1, memory_order_relaxed);
    return m;
}

void model_unref(struct model *m)
{
    if (!m || atomic_fetch_sub_explicit(&m->priv->refs, 1, memory_order_acq_rel) != 1)
        return;
    arena_release(&m->priv->arena);
    free(m->priv);
    free(m);
}

const struct tensor *model_tensor(const struct model *m, const char *name)
{
    uint32_t i;
    return name_index_find(&m->priv->tensors, str_from(name), &i) ? &m->tensors[i] : NULL;
}
