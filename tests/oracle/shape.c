/* The frame every shape shares: keys, tokenizer, head, and the files on disk. */
#include "shape.h"

#include "builders.h"

#include "base/mem.h"
#include "gguf/model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SHAPE(name_, arch_, build_, mix_, tok_, ...)                                                         \
    {.name = name_, .arch = arch_, .build = build_, .mix = MIX_##mix_, .tok = TOK_##tok_, __VA_ARGS__},
const struct shape shapes[] = {
#include "shapes.def"
};
#undef SHAPE
const size_t n_shapes = TABLE_COUNT(shapes);

const struct shape *shape_find(const char *name)
{
    for (size_t i = 0; i < n_shapes; i++)
        if (!strcmp(shapes[i].name, name))
            return &shapes[i];
    return NULL;
}

uint32_t shape_dim(const struct shape *s)
{
    return s->dim ? s->dim : s->heads ? s->embd / s->heads : 0;
}

char shape_kind(const struct shape *s, uint32_t layer)
{
    return s->pattern ? s->pattern[layer % strlen(s->pattern)] : '*';
}

/* ---- tensors ---- */

void make_typed(struct make *k, int layer, const char *name, uint32_t type, uint64_t a, uint64_t b,
                uint64_t c, uint64_t d)
{
    char full[64];
    uint64_t ne[4] = {a, b, c, d};
    if (layer < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    gguf_write_tensor(&k->w, full, type, ne);
}

void make_tensor(struct make *k, int layer, const char *name, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t ne[4] = {a, b, c, 0};
    make_typed(k, layer, name, quant_type(k->s, layer, name, ne), a, b, c, 0);
}

void make_norm(struct make *k, int layer, const char *name, uint64_t n)
{
    char full[48];
    snprintf(full, sizeof full, "%s.weight", name);
    make_tensor(k, layer, full, n, 0, 0);
    snprintf(full, sizeof full, "%s.bias", name);
    if (k->s->has & HAS_NORM_BIAS)
        make_tensor(k, layer, full, n, 0, 0);
}

/* ---- keys ---- */

static const char *prefixed(const struct make *k, const char *key, char out[96])
{
    snprintf(out, 96, "%s.%s", k->s->arch, key);
    return out;
}

void make_u32(struct make *k, const char *key, uint32_t v)
{
    char full[96];
    gguf_write_u32(&k->w, prefixed(k, key, full), v);
}

void make_f32(struct make *k, const char *key, float v)
{
    char full[96];
    gguf_write_f32(&k->w, prefixed(k, key, full), v);
}

void make_bool(struct make *k, const char *key, bool v)
{
    char full[96];
    gguf_write_bool(&k->w, prefixed(k, key, full), v);
}

void make_u32s(struct make *k, const char *key, const uint32_t *v)
{
    char full[96];
    gguf_write_u32s(&k->w, prefixed(k, key, full), v, k->s->layers);
}

/* "u1,2,3" makes an array, "u1" a number. */
static void further_number(struct make *k, const char *key, const char *value)
{
    uint32_t list[512];
    size_t n = 0;
    for (char *end; n < TABLE_COUNT(list); value = end + 1) {
        list[n++] = (uint32_t)strtoul(value, &end, 10);
        if (*end != ',')
            break;
    }
    char full[96];
    if (n == 1)
        make_u32(k, key, list[0]);
    else
        gguf_write_u32s(&k->w, prefixed(k, key, full), list, n);
}

static void further_keys(struct make *k)
{
    auto_free char *copy = mem_strdup(k->s->keys ? k->s->keys : "");
    char *rest = copy, *item, full[96];
    while ((item = strsep(&rest, ";"))) {
        char *value = strchr(item, '=');
        if (!value)
            continue;
        *value++ = 0;
        switch (*value++) {
        case 'u': further_number(k, item, value); break;
        case 'f': make_f32(k, item, strtof(value, NULL)); break;
        case 'b': make_bool(k, item, *value == '1'); break;
        default: gguf_write_str(&k->w, prefixed(k, item, full), value);
        }
    }
}

void make_common_keys(struct make *k)
{
    const struct shape *s = k->s;
    make_u32(k, "context_length", s->ctx);
    make_u32(k, "embedding_length", s->embd);
    make_u32(k, "vocab_size", s->vocab);
    if (s->ff)
        make_u32(k, "feed_forward_length", s->ff);
    bool varied = s->build == shape_varied || s->build == shape_plamo2; /* writes a number a layer itself */
    bool scans = s->build != shape_mla &&
                 s->build != shape_kimi_linear; /* there groups and state are those of an indexer */
    if (s->heads && !varied)
        make_u32(k, "attention.head_count", s->heads);
    if (s->kv && !s->kv_lora && !s->pattern)
        make_u32(k, "attention.head_count_kv", s->kv);
    make_f32(k, s->has & HAS_LAYER_NORM ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
             1e-5f);
    if (s->dim && !s->kv_lora && s->build != shape_varied) {
        make_u32(k, "attention.key_length", s->dim);
        make_u32(k, "attention.value_length", s->dim);
    }
    if (s->rope)
        make_u32(k, "rope.dimension_count", s->rope);
    if (s->window)
        make_u32(k, "attention.sliding_window", s->window);
    if (s->experts) {
        make_u32(k, "expert_count", s->experts);
        make_u32(k, "expert_used_count", s->used);
    }
    if (s->ff_exp)
        make_u32(k, "expert_feed_forward_length", s->ff_exp);
    if (s->lead)
        make_u32(k, "leading_dense_block_count", s->lead);
    if (s->shared)
        make_u32(k, "expert_shared_count", s->shared);
    if (s->nextn)
        make_u32(k, "nextn_predict_layers", s->nextn);
    if (s->conv)
        make_u32(k, "ssm.conv_kernel", s->conv);
    if (s->inner)
        make_u32(k, "ssm.inner_size", s->inner);
    if (s->state && scans)
        make_u32(k, "ssm.state_size", s->state);
    if (s->dt)
        make_u32(k, "ssm.time_step_rank", s->dt);
    if (s->groups && scans)
        make_u32(k, "ssm.group_count", s->groups);
}

/* ---- tokenizers: made-up words, true numbers ---- */

static void word_bpe(size_t i, char *out)
{
    snprintf(out, 32, "t%zx", i);
}

/* The specials every loader looks up, then the bytes, then words. */
static void word_spm(size_t i, char *out)
{
    static const char *const first[] = {"<unk>", "<s>", "</s>"};
    if (i < 3)
        snprintf(out, 32, "%s", first[i]);
    else if (i < 259)
        snprintf(out, 32, "<0x%02X>", (unsigned)(i - 3));
    else if (i == 259) /* Phi-3's loader insists */
        snprintf(out, 32, "<|endoftext|>");
    else
        snprintf(out, 32, "t%zx", i);
}

static void word_bert(size_t i, char *out)
{
    static const char *const first[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    snprintf(out, 32, "%s", i < 5 ? first[i] : "");
    if (i >= 5)
        snprintf(out, 32, "\xe2\x96\x81t%zx", i);
}

static void word_t5(size_t i, char *out)
{
    static const char *const first[] = {"<pad>", "</s>", "<unk>"};
    snprintf(out, 32, "%s", i < 3 ? first[i] : "");
    if (i >= 3)
        snprintf(out, 32, "\xe2\x96\x81t%zx", i);
}

static void word_merge(size_t i, char *out)
{
    snprintf(out, 32, "t %zu", i);
}

static const struct tok_row {
    const char *model, *pre;
    void (*word)(size_t, char *);
    uint32_t bos, eos;
} toks[] = {
    [TOK_BPE] = {"gpt2", "gpt-2", word_bpe, 0, 1},     [TOK_SPM] = {"llama", "default", word_spm, 1, 2},
    [TOK_BERT] = {"bert", "default", word_bert, 2, 3}, [TOK_T5] = {"t5", "default", word_t5, 0, 1},
    [TOK_RWKV] = {"rwkv", "default", word_bpe, 0, 0},
};

static void tokenizer(struct make *k)
{
    const struct shape *s = k->s;
    const struct tok_row *t = &toks[s->tok];
    gguf_write_str(&k->w, "tokenizer.ggml.model", t->model);
    gguf_write_str(&k->w, "tokenizer.ggml.pre", t->pre);
    gguf_write_strs(&k->w, "tokenizer.ggml.tokens", s->vocab, t->word);
    if (s->tok == TOK_BPE)
        gguf_write_strs(&k->w, "tokenizer.ggml.merges", 2, word_merge);
    if (s->tok == TOK_BERT) {
        gguf_write_u32(&k->w, "tokenizer.ggml.token_type_count", 2);
        gguf_write_u32(&k->w, "tokenizer.ggml.unknown_token_id", 1);
        gguf_write_u32(&k->w, "tokenizer.ggml.seperator_token_id", 3);
        gguf_write_u32(&k->w, "tokenizer.ggml.padding_token_id", 0);
    }
    gguf_write_u32(&k->w, "tokenizer.ggml.bos_token_id", t->bos);
    gguf_write_u32(&k->w, "tokenizer.ggml.eos_token_id", t->eos);
}

void make_head(struct make *k)
{
    const struct shape *s = k->s;
    make_tensor(k, -1, "token_embd.weight", s->embd, s->vocab, 0);
    if (s->has & HAS_EMBD_NORM)
        make_norm(k, -1, "token_embd_norm", s->embd);
    if (s->has & HAS_POSITIONS)
        make_tensor(k, -1, "position_embd.weight", s->embd, s->ctx, 0);
    make_norm(k, -1, "output_norm", s->embd);
    if (!(s->has & HAS_TIED))
        make_tensor(k, -1, "output.weight", s->embd, s->vocab, 0);
    if (s->has & HAS_OUT_BIAS)
        make_tensor(k, -1, "output.bias", s->vocab, 0, 0);
    uint32_t half = (s->rope ? s->rope : shape_dim(s)) / 2;
    if (s->has & HAS_FREQS)
        make_tensor(k, -1, "rope_freqs.weight", half, 0, 0);
    if (s->has & HAS_FACTORS) {
        make_tensor(k, -1, "rope_factors_long.weight", half, 0, 0);
        make_tensor(k, -1, "rope_factors_short.weight", half, 0, 0);
    }
}

void shape_make(const struct shape *s, struct make *ret)
{
    *ret = (struct make){.s = s};
    gguf_write_str(&ret->w, "general.architecture", s->arch);
    gguf_write_str(&ret->w, "general.type", "model");
    gguf_write_str(&ret->w, "general.name", s->name);
    gguf_write_u32(&ret->w, "general.file_type", quant_file_type(s->mix));
    gguf_write_u32(&ret->w, "general.quantization_version", 2);
    make_u32(ret, "block_count", s->layers);
    make_common_keys(ret);
    further_keys(ret);
    s->build(ret);
    tokenizer(ret);
}

/* ---- files ---- */

static bool hash_known(const char *path, uint64_t hash)
{
    uint64_t found = 0;
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool same = fscanf(f, "%" SCNx64, &found) == 1 && found == hash;
    fclose(f);
    return same;
}

enum rc shape_file(const struct shape *s, const char *dir, char **ret_path, uint64_t *ret_hash,
                   struct err *err)
{
    struct make k;
    shape_make(s, &k);
    uint64_t hash = gguf_write_hash(&k.w);
    char *path = mem_printf("%s/%s.gguf", dir, s->name);
    auto_free char *mark = mem_printf("%s/%s.hash", dir, s->name);
    enum rc rc = RC_OK;
    if (access(path, R_OK) || !hash_known(mark, hash)) {
        rc = gguf_write_save(&k.w, path, err);
        FILE *f = rc ? NULL : fopen(mark, "we");
        if (f) {
            fprintf(f, "%016" PRIx64 "\n", hash);
            fclose(f);
        }
    }
    gguf_write_release(&k.w);
    if (rc) {
        free(path);
        return rc;
    }
    *ret_path = path;
    if (ret_hash)
        *ret_hash = hash;
    return RC_OK;
}
