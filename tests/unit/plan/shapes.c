/* See shapes.h. */
#include "shapes.h"

#include "base/buf.h"
#include "base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct shape shape_llama_8b = {"llama", 32,    4096,   32,     8,
                                     128,     14336, 128256, 131072, .rope_freqs = true};
const struct shape shape_llama_1b = {
    "llama", 16, 2048, 32, 8, 64, 8192, 128256, 131072, .tied = true, .rope_freqs = true};
const struct shape shape_llama_70b = {"llama", 80,    8192,   64,     8,
                                      128,     28672, 128256, 131072, .rope_freqs = true};
const struct shape shape_qwen3_30b = {
    "qwen3moe",     48,        2048,         32, 4, 128, 6144, 151936, 40960, .qk_norm = true,
    .experts = 128, .used = 8, .ff_exp = 768};
const struct shape shape_gemma2_9b = {
    "gemma2", 42, 3584, 16, 8, 256, 14336, 256000, 8192, .tied = true, .post_norms = true, .window = 4096};
const struct shape shape_qwen2_half = {"qwen2", 24,     896,   14,           2,           64,
                                       4864,    151936, 32768, .tied = true, .bias = true};
const struct shape shape_mamba_2b = {"mamba",
                                     64,
                                     2560,
                                     0,
                                     0,
                                     0,
                                     0,
                                     50280,
                                     1048576,
                                     .tied = true,
                                     .ssm_inner = 5120,
                                     .ssm_state = 16,
                                     .ssm_conv = 4,
                                     .ssm_rank = 160};

struct writer {
    const struct shape *s;
    struct buf keys, infos;
    uint64_t n_keys, n_tensors, offset;
};

static void put(struct buf *b, const void *p, size_t n)
{
    if (!buf_append(b, p, n))
        abort();
}

static void put_u32(struct buf *b, uint32_t v)
{
    put(b, &v, sizeof v);
}

static void put_u64(struct buf *b, uint64_t v)
{
    put(b, &v, sizeof v);
}

static void put_text(struct buf *b, const char *text)
{
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

static void key_u32(struct writer *w, const char *suffix, uint32_t v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", w->s->arch, suffix);
    put_text(&w->keys, key);
    put_u32(&w->keys, 4);
    put_u32(&w->keys, v);
    w->n_keys++;
}

static void key_text(struct writer *w, const char *key, const char *v)
{
    put_text(&w->keys, key);
    put_u32(&w->keys, 8);
    put_text(&w->keys, v);
    w->n_keys++;
}

static void tensor(struct writer *w, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1,
                   uint64_t ne2)
{
    uint64_t row = 0, ne[3] = {ne0, ne1, ne2};
    uint32_t n_dims = ne2 ? 3 : ne1 ? 2 : 1;
    if (!ggml_row_bytes(type, ne0, &row))
        abort();
    put_text(&w->infos, name);
    put_u32(&w->infos, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        put_u64(&w->infos, ne[i]);
    put_u32(&w->infos, type);
    put_u64(&w->infos, w->offset);
    uint64_t bytes = row * (ne1 ? ne1 : 1) * (ne2 ? ne2 : 1);
    w->offset += (bytes + 31) / 32 * 32;
    w->n_tensors++;
}

static void block(struct writer *w, uint32_t il, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1,
                  uint64_t ne2)
{
    char full[64];
    snprintf(full, sizeof full, "blk.%u.%s", il, name);
    tensor(w, full, type, ne0, ne1, ne2);
}

/* Rows that are no multiple of 256 fall back to types with blocks of 32. */
static uint32_t type_for(uint64_t ne0, bool more)
{
    if (ne0 % 256)
        return ne0 % 32 ? GGML_F16 : more ? GGML_Q8_0 : GGML_Q5_0;
    return more ? GGML_Q6_K : GGML_Q4_K;
}

static bool more_bits(const struct shape *s, uint32_t il)
{
    uint32_t n = s->layers;
    return il < n / 8 || il >= 7 * n / 8 || (il - n / 8) % 3 == 2;
}

static void attention(struct writer *w, uint32_t il)
{
    const struct shape *s = w->s;
    uint64_t q = (uint64_t)s->heads * s->head, kv = (uint64_t)s->heads_kv * s->head;
    block(w, il, "attn_norm.weight", GGML_F32, s->embd, 0, 0);
    block(w, il, "attn_q.weight", type_for(s->embd, false), s->embd, q, 0);
    block(w, il, "attn_k.weight", type_for(s->embd, false), s->embd, kv, 0);
    block(w, il, "attn_v.weight", type_for(s->embd, more_bits(s, il)), s->embd, kv, 0);
    if (s->bias) {
        block(w, il, "attn_q.bias", GGML_F32, q, 0, 0);
        block(w, il, "attn_k.bias", GGML_F32, kv, 0, 0);
        block(w, il, "attn_v.bias", GGML_F32, kv, 0, 0);
    }
    block(w, il, "attn_output.weight", type_for(q, false), q, s->embd, 0);
    if (s->qk_norm) {
        block(w, il, "attn_q_norm.weight", GGML_F32, s->head, 0, 0);
        block(w, il, "attn_k_norm.weight", GGML_F32, s->head, 0, 0);
    }
    if (s->post_norms) {
        block(w, il, "post_attention_norm.weight", GGML_F32, s->embd, 0, 0);
        block(w, il, "post_ffw_norm.weight", GGML_F32, s->embd, 0, 0);
    }
    block(w, il, "ffn_norm.weight", GGML_F32, s->embd, 0, 0);
}

static void feed_forward(struct writer *w, uint32_t il)
{
    const struct shape *s = w->s;
    bool more = more_bits(s, il);
    if (s->experts) {
        block(w, il, "ffn_gate_inp.weight", GGML_F32, s->embd, s->experts, 0);
        block(w, il, "ffn_gate_exps.weight", type_for(s->embd, false), s->embd, s->ff_exp, s->experts);
        block(w, il, "ffn_up_exps.weight", type_for(s->embd, false), s->embd, s->ff_exp, s->experts);
        block(w, il, "ffn_down_exps.weight", type_for(s->ff_exp, more), s->ff_exp, s->embd, s->experts);
        return;
    }
    block(w, il, "ffn_gate.weight", type_for(s->embd, false), s->embd, s->ff, 0);
    block(w, il, "ffn_up.weight", type_for(s->embd, false), s->embd, s->ff, 0);
    block(w, il, "ffn_down.weight", type_for(s->ff, more), s->ff, s->embd, 0);
}

static void state_space(struct writer *w, uint32_t il)
{
    const struct shape *s = w->s;
    uint64_t inner = s->ssm_inner;
    block(w, il, "attn_norm.weight", GGML_F32, s->embd, 0, 0);
    block(w, il, "ssm_in.weight", GGML_Q4_K, s->embd, 2 * inner, 0);
    block(w, il, "ssm_conv1d.weight", GGML_F32, s->ssm_conv, inner, 0);
    block(w, il, "ssm_conv1d.bias", GGML_F32, inner, 0, 0);
    block(w, il, "ssm_x.weight", GGML_Q4_K, inner, s->ssm_rank + 2ull * s->ssm_state, 0);
    block(w, il, "ssm_dt.weight", type_for(s->ssm_rank, false), s->ssm_rank, inner, 0);
    block(w, il, "ssm_dt.bias", GGML_F32, inner, 0, 0);
    block(w, il, "ssm_a", GGML_F32, s->ssm_state, inner, 0);
    block(w, il, "ssm_d", GGML_F32, inner, 0, 0);
    block(w, il, "ssm_out.weight", GGML_Q4_K, inner, s->embd, 0);
}

static void keys(struct writer *w)
{
    const struct shape *s = w->s;
    key_text(w, "general.architecture", s->arch);
    key_text(w, "general.name", "toy");
    if (!s->no_layers)
        key_u32(w, "block_count", s->layers);
    key_u32(w, "context_length", s->ctx);
    key_u32(w, "embedding_length", s->embd);
    key_u32(w, "vocab_size", s->vocab);
    if (s->ssm_inner) {
        key_u32(w, "ssm.inner_size", s->ssm_inner);
        key_u32(w, "ssm.state_size", s->ssm_state);
        key_u32(w, "ssm.conv_kernel", s->ssm_conv);
        key_u32(w, "ssm.time_step_rank", s->ssm_rank);
        return;
    }
    if (s->pooling)
        key_u32(w, "pooling_type", s->pooling);
    key_u32(w, "feed_forward_length", s->ff);
    key_u32(w, "attention.head_count", s->no_heads ? 0 : s->heads);
    key_u32(w, "attention.head_count_kv", s->heads_kv);
    key_u32(w, "attention.key_length", s->head);
    key_u32(w, "attention.value_length", s->head);
    if (s->experts) {
        key_u32(w, "expert_count", s->experts);
        key_u32(w, "expert_used_count", s->used);
    }
    if (s->window)
        key_u32(w, "attention.sliding_window", s->window);
}

static void tensors(struct writer *w)
{
    const struct shape *s = w->s;
    tensor(w, "token_embd.weight", type_for(s->embd, s->tied), s->embd, s->vocab, 0);
    tensor(w, "output_norm.weight", GGML_F32, s->embd, 0, 0);
    if (!s->tied)
        tensor(w, "output.weight", type_for(s->embd, true), s->embd, s->vocab, 0);
    if (s->rope_freqs)
        tensor(w, "rope_freqs.weight", GGML_F32, s->head / 2, 0, 0);
    for (uint32_t il = 0; il < s->layers; il++) {
        if (s->ssm_inner) {
            state_space(w, il);
        } else {
            attention(w, il);
            feed_forward(w, il);
        }
    }
}

enum rc shape_try(const struct shape *s, struct model **ret_model, struct err *err)
{
    struct writer w = {.s = s};
    const char *dir = getenv("TMPDIR");
    char path[256];
    snprintf(path, sizeof path, "%s/arriero-shape-XXXXXX", dir && strlen(dir) < 200 ? dir : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0)
        abort();
    keys(&w);
    tensors(&w);
    struct buf head = {0};
    put(&head, "GGUF", 4);
    put_u32(&head, 3);
    put_u64(&head, w.n_tensors);
    put_u64(&head, w.n_keys);
    put(&head, w.keys.data, w.keys.n);
    put(&head, w.infos.data, w.infos.n);
    while (head.n % 32)
        put(&head, "", 1);
    if (write(fd, head.data, head.n) != (ssize_t)head.n || ftruncate(fd, (off_t)(head.n + w.offset)))
        abort();
    close(fd);
    enum rc rc = model_open(path, ret_model, err);
    unlink(path);
    buf_release(&head);
    buf_release(&w.keys);
    buf_release(&w.infos);
    return rc;
}

struct model *shape_model(const struct shape *s)
{
    struct model *m = NULL;
    struct err err;
    if (shape_try(s, &m, &err)) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    return m;
}
