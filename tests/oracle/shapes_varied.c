/* Transformers whose layers differ in heads or in the width of their feed-forward block, or that lack what
 * the plain builder always writes. Tests only. */
#include "shape.h"

#include "builders.h"

#include "gguf/model.h"

#include <stdio.h>
#include <string.h>

#define MAX_LAYERS 512

/* Qwen's first generation counts both halves of the gated block in its key. */
void shape_qwen(struct make *k)
{
    const struct shape *s = k->s;
    struct shape half = *s;
    half.ff /= 2;
    k->s = &half;
    shape_plain(k);
    k->s = s;
}

void shape_apertus(struct make *k)
{
    gguf_write_f32(&k->w, "xielu.alpha_n", 0.8f);
    gguf_write_f32(&k->w, "xielu.alpha_p", 0.8f);
    gguf_write_f32(&k->w, "xielu.beta", 0.5f);
    gguf_write_f32(&k->w, "xielu.eps", 1e-6f);
    shape_plain(k);
}

/* Norms without weights: OLMo; Talkie, which also lets the embeddings back in. */
void shape_bare(struct make *k)
{
    const struct shape *s = k->s;
    make_tensor(k, -1, "token_embd.weight", s->embd, s->vocab, 0);
    if (!(s->has & HAS_TIED))
        make_tensor(k, -1, "output.weight", s->embd, s->vocab, 0);
    for (int i = 0; i < (int)s->layers; i++) {
        make_attention(k, i);
        make_ffn(k, i, s->ff);
        if (!strcmp(s->arch, "talkie")) {
            make_tensor(k, i, "attn_q_norm.weight", 1, s->heads, 0);
            make_tensor(k, i, "layer_output_scale.weight", 1, 0, 0);
        }
    }
}

/* More heads and wider blocks from layer to layer. */
void shape_openelm(struct make *k)
{
    static const uint32_t heads[] = {16, 16, 16, 20, 20, 20, 20, 20, 20, 20, 24, 24, 24, 24,
                                     24, 24, 24, 24, 28, 28, 28, 28, 28, 28, 32, 32, 32, 32};
    const struct shape *s = k->s;
    uint32_t kv[MAX_LAYERS] = {0}, ff[MAX_LAYERS] = {0}, q[MAX_LAYERS] = {0};
    for (uint32_t i = 0; i < s->layers; i++) {
        q[i] = heads[i % 28];
        kv[i] = q[i] / 4;
        ff[i] = (s->embd / 2 + i * (7 * s->embd / 2) / (s->layers - 1) + 128) / 256 * 256;
    }
    make_u32s(k, "attention.head_count", q);
    make_u32s(k, "attention.head_count_kv", kv);
    make_u32s(k, "feed_forward_length", ff);
    make_head(k);
    for (uint32_t i = 0; i < s->layers; i++) {
        struct shape one = *s;
        one.heads = q[i];
        one.kv = kv[i];
        k->s = &one;
        make_norm(k, (int)i, "attn_norm", s->embd);
        make_attention(k, (int)i);
        make_norm(k, (int)i, "ffn_norm", s->embd);
        make_ffn(k, (int)i, ff[i]);
    }
    k->s = s;
}

/* A dense block as wide as the embeddings, and experts behind a norm of their own. */
void shape_arctic(struct make *k)
{
    const struct shape *s = k->s;
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        make_attention(k, i);
        make_norm(k, i, "ffn_norm", s->embd);
        make_ffn(k, i, s->embd);
        make_norm(k, i, "ffn_norm_exps", s->embd);
        make_experts(k, i);
    }
}

/* One factor a matrix. */
static void with_scale(struct make *k, int i, const char *name, uint64_t in, uint64_t out)
{
    char full[48];
    snprintf(full, sizeof full, "%s.weight", name);
    make_tensor(k, i, full, in, out, 0);
    snprintf(full, sizeof full, "%s.scale", name);
    make_tensor(k, i, full, 1, 0, 0);
}

void shape_bitnet(struct make *k)
{
    const struct shape *s = k->s;
    uint64_t kv = (uint64_t)s->kv * shape_dim(s);
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        make_norm(k, i, "attn_sub_norm", s->embd);
        with_scale(k, i, "attn_q", s->embd, s->embd);
        with_scale(k, i, "attn_k", s->embd, kv);
        with_scale(k, i, "attn_v", s->embd, kv);
        with_scale(k, i, "attn_output", s->embd, s->embd);
        make_norm(k, i, "ffn_norm", s->embd);
        make_norm(k, i, "ffn_sub_norm", s->ff);
        with_scale(k, i, "ffn_gate", s->embd, s->ff);
        with_scale(k, i, "ffn_up", s->embd, s->ff);
        with_scale(k, i, "ffn_down", s->ff, s->embd);
    }
}

/* PLaMo 2: recurrent layers ('M') whose step comes from a product of its own; norms without a suffix. */
void shape_plamo2(struct make *k)
{
    const struct shape *s = k->s;
    uint32_t kv[MAX_LAYERS] = {0}, q[MAX_LAYERS] = {0};
    uint64_t step = s->embd / 16 > 64 ? s->embd / 16 : 64, dim = s->dim;
    for (uint32_t i = 0; i < s->layers; i++) {
        q[i] = shape_kind(s, i) == 'M' ? 0 : s->heads;
        kv[i] = shape_kind(s, i) == 'M' ? 0 : s->kv;
    }
    make_u32s(k, "attention.head_count", q);
    make_u32s(k, "attention.head_count_kv", kv);
    make_u32(k, "ssm.group_count", 0);
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        if (shape_kind(s, (uint32_t)i) == 'M') {
            make_tensor(k, i, "ssm_in.weight", s->embd, 2ull * s->inner, 0);
            make_tensor(k, i, "ssm_conv1d.weight", s->conv, s->inner, 0);
            make_tensor(k, i, "ssm_x.weight", s->inner, step + 2ull * s->state, 0);
            make_tensor(k, i, "ssm_dt.weight", step, s->dt, 0);
            make_tensor(k, i, "ssm_dt.bias", s->dt, 0, 0);
            make_tensor(k, i, "ssm_a", s->dt, 0, 0);
            make_tensor(k, i, "ssm_d", s->dt, 0, 0);
            make_tensor(k, i, "ssm_out.weight", s->inner, s->embd, 0);
            make_tensor(k, i, "ssm_dt_norm", step, 0, 0);
            make_tensor(k, i, "ssm_b_norm", s->state, 0, 0);
            make_tensor(k, i, "ssm_c_norm", s->state, 0, 0);
        } else {
            make_tensor(k, i, "attn_qkv.weight", s->embd, dim * (s->heads + 2ull * s->kv), 0);
            make_tensor(k, i, "attn_q_norm.weight", dim, s->heads, 0);
            make_tensor(k, i, "attn_k_norm.weight", dim, s->kv, 0);
            make_tensor(k, i, "attn_output.weight", s->heads * dim, s->embd, 0);
        }
        make_tensor(k, i, "post_attention_norm", s->embd, 0, 0);
        make_norm(k, i, "ffn_norm", s->embd);
        make_ffn(k, i, s->ff);
        make_tensor(k, i, "post_ffw_norm", s->embd, 0, 0);
    }
}

/* Kimi: delta nets with a rate a value ('M'), and latent attention without rotation. */
static void kimi_delta(struct make *k, int i)
{
    const struct shape *s = k->s;
    uint64_t wide = (uint64_t)s->heads * s->state;
    static const char *const names[] = {"q", "k", "v"};
    char name[48];
    for (int j = 0; j < 3; j++) {
        snprintf(name, sizeof name, "ssm_conv1d_%s.weight", names[j]);
        make_typed(k, i, name, GGML_F32, s->conv, 1, wide, 1);
        snprintf(name, sizeof name, "attn_%s.weight", names[j]);
        make_tensor(k, i, name, s->embd, wide, 0);
    }
    make_tensor(k, i, "ssm_f_a.weight", s->embd, s->state, 0);
    make_tensor(k, i, "ssm_f_b.weight", s->state, wide, 0);
    make_tensor(k, i, "ssm_beta.weight", s->embd, s->heads, 0);
    make_tensor(k, i, "ssm_a", 1, s->heads, 0);
    make_tensor(k, i, "ssm_dt.bias", wide, 0, 0);
    make_tensor(k, i, "ssm_g_a.weight", s->embd, s->state, 0);
    make_tensor(k, i, "ssm_g_b.weight", s->state, wide, 0);
    make_tensor(k, i, "ssm_norm.weight", s->state, 0, 0);
    make_tensor(k, i, "attn_output.weight", wide, s->embd, 0);
}

void shape_kimi_linear(struct make *k)
{
    const struct shape *s = k->s;
    uint32_t kv[MAX_LAYERS] = {0};
    for (uint32_t i = 0; i < s->layers; i++)
        kv[i] = shape_kind(s, i) == 'M' ? 0 : 1;
    make_u32s(k, "attention.head_count_kv", kv);
    make_u32(k, "attention.kv_lora_rank", s->kv_lora);
    make_u32(k, "attention.key_length", s->kv_lora + s->rope);
    make_u32(k, "attention.key_length_mla", s->nope + s->rope);
    make_u32(k, "attention.value_length_mla", s->dim_v);
    make_u32(k, "kda.head_dim", s->state);
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        if (shape_kind(s, (uint32_t)i) == 'M')
            kimi_delta(k, i);
        else
            make_latent_attention(k, i);
        make_norm(k, i, "ffn_norm", s->embd);
        if ((uint32_t)i >= s->lead)
            make_experts(k, i);
        else
            make_ffn(k, i, s->ff);
    }
}

/* ---- full attention ('*') and windows ('M') with different heads ---- */

struct heads {
    uint32_t q, kv;
};

/* MiMo: twice the key heads in windows; Step, Laguna: more query heads in windows. */
static struct heads heads_of(const struct shape *s, uint32_t layer)
{
    bool slides = shape_kind(s, layer) == 'M', keys = !strcmp(s->arch, "mimo2");
    struct heads h = {s->heads, s->kv};
    if (slides && keys)
        h.kv = s->groups;
    else if (slides && s->groups)
        h.q = s->groups;
    return h;
}

static void varied_keys(struct make *k)
{
    const struct shape *s = k->s;
    uint32_t q[MAX_LAYERS] = {0}, kv[MAX_LAYERS] = {0};
    bool slides[MAX_LAYERS] = {false};
    char key[64];
    for (uint32_t i = 0; i < s->layers; i++) {
        struct heads h = heads_of(s, i);
        q[i] = h.q;
        kv[i] = h.kv;
        slides[i] = shape_kind(s, i) == 'M';
    }
    make_u32s(k, "attention.head_count", q);
    make_u32s(k, "attention.head_count_kv", kv);
    make_u32(k, "attention.key_length", s->dim);
    make_u32(k, "attention.value_length", s->dim_v ? s->dim_v : s->dim);
    snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", s->arch);
    gguf_write_bools(&k->w, key, slides, s->layers);
}

static void varied_attention(struct make *k, int i)
{
    const struct shape *s = k->s;
    struct heads h = heads_of(s, (uint32_t)i);
    uint64_t dim_v = s->dim_v ? s->dim_v : s->dim, q = (uint64_t)h.q * s->dim, o = h.q * dim_v;
    make_tensor(k, i, "attn_q.weight", s->embd, q, 0);
    make_tensor(k, i, "attn_k.weight", s->embd, (uint64_t)h.kv * s->dim, 0);
    make_tensor(k, i, "attn_v.weight", s->embd, h.kv * dim_v, 0);
    make_tensor(k, i, "attn_output.weight", o, s->embd, 0);
    if (s->has & HAS_QK_NORM) {
        make_tensor(k, i, "attn_q_norm.weight", s->dim, 0, 0);
        make_tensor(k, i, "attn_k_norm.weight", s->dim, 0, 0);
    }
    if (s->has & HAS_GATE_HEADS)
        make_tensor(k, i, "attn_gate.weight", s->embd, h.q, 0);
    if ((s->has & HAS_SINKS) && shape_kind(s, (uint32_t)i) == 'M')
        make_tensor(k, i, "attn_sinks.weight", h.q, 0, 0);
}

void shape_varied(struct make *k)
{
    const struct shape *s = k->s;
    varied_keys(k);
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        varied_attention(k, i);
        make_norm(k, i, "ffn_norm", s->embd);
        if (s->experts && (uint32_t)i >= s->lead)
            make_experts(k, i);
        else
            make_ffn(k, i, s->ff);
    }
}
