/* State-space and RWKV models, and hybrids of them with attention. */
#include "shape.h"

#include "builders.h"

#include "gguf/model.h"

#include <string.h>

/* ---- Mamba ---- */

/* The first version: a state a channel, steps of low rank. */
static void mamba_block(struct make *k, int i, bool normed)
{
    const struct shape *s = k->s;
    make_tensor(k, i, "ssm_in.weight", s->embd, 2 * (uint64_t)s->inner, 0);
    make_tensor(k, i, "ssm_conv1d.weight", s->conv, s->inner, 0);
    make_tensor(k, i, "ssm_conv1d.bias", s->inner, 0, 0);
    make_tensor(k, i, "ssm_x.weight", s->inner, s->dt + 2 * (uint64_t)s->state, 0);
    make_tensor(k, i, "ssm_dt.weight", s->dt, s->inner, 0);
    make_tensor(k, i, "ssm_dt.bias", s->inner, 0, 0);
    make_tensor(k, i, "ssm_a", s->state, s->inner, 0);
    make_tensor(k, i, "ssm_d", s->inner, 0, 0);
    make_tensor(k, i, "ssm_out.weight", s->inner, s->embd, 0);
    if (normed) {
        make_tensor(k, i, "ssm_dt_norm.weight", s->dt, 0, 0);
        make_tensor(k, i, "ssm_b_norm.weight", s->state, 0, 0);
        make_tensor(k, i, "ssm_c_norm.weight", s->state, 0, 0);
    }
}

/* The second version: heads (dt of them) and groups. */
static void mamba2_block(struct make *k, int i, bool normed)
{
    const struct shape *s = k->s;
    uint64_t mixed = s->inner + 2 * (uint64_t)s->groups * s->state;
    make_tensor(k, i, "ssm_in.weight", s->embd, mixed + s->inner + s->dt, 0);
    make_tensor(k, i, "ssm_conv1d.weight", s->conv, mixed, 0);
    make_tensor(k, i, "ssm_conv1d.bias", mixed, 0, 0);
    make_tensor(k, i, "ssm_dt.bias", s->dt, 0, 0);
    make_tensor(k, i, "ssm_a", 1, s->dt, 0);
    make_tensor(k, i, "ssm_d", 1, s->dt, 0);
    if (normed)
        make_tensor(k, i, "ssm_norm.weight", s->inner / s->groups, s->groups, 0);
    make_tensor(k, i, "ssm_out.weight", s->inner, s->embd, 0);
}

void shape_mamba(struct make *k)
{
    make_head(k);
    for (int i = 0; i < (int)k->s->layers; i++) {
        make_norm(k, i, "attn_norm", k->s->embd);
        mamba_block(k, i, false);
    }
}

void shape_mamba2(struct make *k)
{
    make_head(k);
    for (int i = 0; i < (int)k->s->layers; i++) {
        make_norm(k, i, "attn_norm", k->s->embd);
        mamba2_block(k, i, true);
    }
}

/* ---- hybrids ---- */

/* Which layers attend is told by the number of their KV heads. */
static void heads_by_layer(struct make *k)
{
    uint32_t kv[512] = {0};
    for (uint32_t i = 0; i < k->s->layers; i++)
        kv[i] = shape_kind(k->s, i) == '*' ? k->s->kv : 0;
    make_u32s(k, "attention.head_count_kv", kv);
}

void shape_jamba(struct make *k)
{
    const struct shape *s = k->s;
    heads_by_layer(k);
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        if (shape_kind(s, (uint32_t)i) == '*')
            make_attention(k, i);
        else
            mamba_block(k, i, true);
        make_norm(k, i, "ffn_norm", s->embd);
        if (s->experts && i % 2)
            make_experts(k, i);
        else
            make_ffn(k, i, s->ff);
    }
}

void shape_falcon_h1(struct make *k)
{
    const struct shape *s = k->s;
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        mamba2_block(k, i, false);
        make_attention(k, i);
        make_tensor(k, i, "ffn_norm", s->embd, 0, 0); /* its converter drops ".weight" */
        make_ffn(k, i, s->ff);
    }
}

void shape_granite_hybrid(struct make *k)
{
    const struct shape *s = k->s;
    heads_by_layer(k);
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        if (shape_kind(s, (uint32_t)i) == '*')
            make_attention(k, i);
        else
            mamba2_block(k, i, true);
        make_norm(k, i, "ffn_norm", s->embd);
        if (s->experts)
            make_experts(k, i);
        else
            make_ffn(k, i, s->ff);
    }
}

static void ungated_experts(struct make *k, int i)
{
    const struct shape *s = k->s;
    make_tensor(k, i, "ffn_gate_inp.weight", s->embd, s->experts, 0);
    make_tensor(k, i, "exp_probs_b.bias", s->experts, 0, 0);
    make_tensor(k, i, "ffn_up_exps.weight", s->embd, s->ff_exp, s->experts);
    make_tensor(k, i, "ffn_down_exps.weight", s->ff_exp, s->embd, s->experts);
    make_tensor(k, i, "ffn_up_shexp.weight", s->embd, s->ff_shared, 0);
    make_tensor(k, i, "ffn_down_shexp.weight", s->ff_shared, s->embd, 0);
}

void shape_nemotron_h(struct make *k)
{
    const struct shape *s = k->s;
    uint32_t ff[512] = {0};
    for (uint32_t i = 0; i < s->layers; i++)
        ff[i] = shape_kind(s, i) == '-' ? s->embd * 21 / 4 : shape_kind(s, i) == 'E' ? s->ff_exp : 0;
    make_u32s(k, "feed_forward_length", ff);
    heads_by_layer(k);
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        if (shape_kind(s, (uint32_t)i) == '*')
            make_attention(k, i);
        else if (shape_kind(s, (uint32_t)i) == 'M')
            mamba2_block(k, i, true);
        else if (shape_kind(s, (uint32_t)i) == 'E')
            ungated_experts(k, i);
        else
            make_ffn(k, i, ff[i]);
    }
}

/* Short convolutions between attention layers. */
void shape_lfm2(struct make *k)
{
    const struct shape *s = k->s;
    make_u32(k, "shortconv.l_cache", 3);
    heads_by_layer(k);
    make_tensor(k, -1, "token_embd.weight", s->embd, s->vocab, 0);
    make_tensor(k, -1, "token_embd_norm.weight", s->embd, 0, 0);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        if (shape_kind(s, (uint32_t)i) == '*') {
            make_attention(k, i);
        } else {
            make_tensor(k, i, "shortconv.conv.weight", 3, s->embd, 0);
            make_tensor(k, i, "shortconv.in_proj.weight", s->embd, 3 * (uint64_t)s->embd, 0);
            make_tensor(k, i, "shortconv.out_proj.weight", s->embd, s->embd, 0);
        }
        make_norm(k, i, "ffn_norm", s->embd);
        if (s->experts && (uint32_t)i >= s->lead)
            make_experts(k, i);
        else
            make_ffn(k, i, s->ff);
    }
}

/* Gated attention (the query matrix holds the gate) and gated delta nets. state: width of a head; groups: key
 * heads; dt: value heads. */
void shape_qwen3next(struct make *k)
{
    const struct shape *s = k->s;
    uint64_t keys = (uint64_t)s->state * s->groups, dim = shape_dim(s);
    make_u32(k, "attention.head_count_kv", s->kv);
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        make_norm(k, i, "post_attention_norm", s->embd);
        if (shape_kind(s, (uint32_t)i) == '*') {
            make_tensor(k, i, "attn_q.weight", s->embd, 2 * s->heads * dim, 0);
            make_tensor(k, i, "attn_k.weight", s->embd, s->kv * dim, 0);
            make_tensor(k, i, "attn_v.weight", s->embd, s->kv * dim, 0);
            make_tensor(k, i, "attn_output.weight", s->heads * dim, s->embd, 0);
            make_tensor(k, i, "attn_q_norm.weight", dim, 0, 0);
            make_tensor(k, i, "attn_k_norm.weight", dim, 0, 0);
        } else {
            make_tensor(k, i, "attn_qkv.weight", s->embd, 2 * keys + s->inner, 0);
            make_tensor(k, i, "attn_gate.weight", s->embd, s->inner, 0);
            make_tensor(k, i, "ssm_conv1d.weight", s->conv, 2 * keys + s->inner, 0);
            make_tensor(k, i, "ssm_dt.bias", s->dt, 0, 0);
            make_tensor(k, i, "ssm_a", s->dt, 0, 0);
            if (!strncmp(s->arch, "qwen35", 6)) { /* qwen35: two matrices for one */
                make_tensor(k, i, "ssm_alpha.weight", s->embd, s->dt, 0);
                make_tensor(k, i, "ssm_beta.weight", s->embd, s->dt, 0);
            } else {
                make_tensor(k, i, "ssm_ba.weight", s->embd, 2 * (uint64_t)s->dt, 0);
            }
            make_tensor(k, i, "ssm_norm.weight", s->inner / s->dt, 0, 0);
            make_tensor(k, i, "ssm_out.weight", s->inner, s->embd, 0);
        }
        if (s->experts)
            make_experts(k, i);
        else
            make_ffn(k, i, s->ff);
    }
}

/* ---- RWKV ---- */

static void rwkv_norms(struct make *k, int i)
{
    make_norm(k, i, "attn_norm", k->s->embd);
    make_norm(k, i, "attn_norm_2", k->s->embd);
    make_norm(k, i, "time_mix_ln", k->s->embd);
}

static void squares(struct make *k, int i, const char *const *names, size_t n)
{
    for (size_t j = 0; j < n; j++)
        make_tensor(k, i, names[j], k->s->embd, k->s->embd, 0);
}

/* q_lora: width of the mixing's low rank; kv_lora: the decay's. */
void shape_rwkv6(struct make *k)
{
    static const char *const full[] = {"time_mix_key.weight",        "time_mix_value.weight",
                                       "time_mix_receptance.weight", "time_mix_gate.weight",
                                       "time_mix_output.weight",     "channel_mix_receptance.weight"};
    const struct shape *s = k->s;
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        rwkv_norms(k, i);
        squares(k, i, full, sizeof full / sizeof *full);
        make_tensor(k, i, "time_mix_w1.weight", s->embd, 5 * (uint64_t)s->q_lora, 0);
        make_tensor(k, i, "time_mix_w2.weight", s->q_lora, s->embd, 5);
        make_tensor(k, i, "time_mix_lerp_x.weight", s->embd, 1, 1);
        make_typed(k, i, "time_mix_lerp_fused.weight", GGML_F32, s->embd, 1, 1, 5);
        make_tensor(k, i, "time_mix_first.weight", s->state, s->embd / s->state, 0);
        make_tensor(k, i, "time_mix_decay.weight", s->embd, 0, 0);
        make_tensor(k, i, "time_mix_decay_w1.weight", s->embd, s->kv_lora, 0);
        make_tensor(k, i, "time_mix_decay_w2.weight", s->kv_lora, s->embd, 0);
        make_tensor(k, i, "channel_mix_lerp_k.weight", s->embd, 1, 1);
        make_tensor(k, i, "channel_mix_lerp_r.weight", s->embd, 1, 1);
        make_tensor(k, i, "channel_mix_key.weight", s->embd, s->ff, 0);
        make_tensor(k, i, "channel_mix_value.weight", s->ff, s->embd, 0);
    }
}

/* A transformer's weights around RWKV's time mixing; kv: heads that keys and values have. */
void shape_qrwkv6(struct make *k)
{
    static const char *const full[] = {"time_mix_receptance.weight", "time_mix_gate.weight",
                                       "time_mix_output.weight"};
    const struct shape *s = k->s;
    uint64_t kv = (uint64_t)s->kv * s->state;
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        squares(k, i, full, sizeof full / sizeof *full);
        make_tensor(k, i, "time_mix_key.weight", s->embd, kv, 0);
        make_tensor(k, i, "time_mix_key.bias", kv, 0, 0);
        make_tensor(k, i, "time_mix_value.weight", s->embd, kv, 0);
        make_tensor(k, i, "time_mix_value.bias", kv, 0, 0);
        make_tensor(k, i, "time_mix_receptance.bias", s->embd, 0, 0);
        make_tensor(k, i, "time_mix_w1.weight", s->embd, 5 * (uint64_t)s->q_lora, 0);
        make_tensor(k, i, "time_mix_w2.weight", s->q_lora, s->embd, 5);
        make_tensor(k, i, "time_mix_lerp_x.weight", s->embd, 1, 1);
        make_typed(k, i, "time_mix_lerp_fused.weight", GGML_F32, s->embd, 1, 1, 5);
        make_tensor(k, i, "time_mix_decay.weight", s->embd, 0, 0);
        make_tensor(k, i, "time_mix_decay_w1.weight", s->embd, s->kv_lora, 0);
        make_tensor(k, i, "time_mix_decay_w2.weight", s->kv_lora, s->embd, 0);
        make_norm(k, i, "ffn_norm", s->embd);
        make_ffn(k, i, s->ff);
    }
}

/* The low ranks: q_lora decay, kv_lora in-context rate, nope value residual, dim_v gate. */
void shape_rwkv7(struct make *k)
{
    static const char *const full[] = {"time_mix_key.weight", "time_mix_value.weight",
                                       "time_mix_receptance.weight", "time_mix_output.weight"};
    const struct shape *s = k->s;
    make_u32(k, "attention.decay_lora_rank", s->q_lora);
    make_u32(k, "attention.iclr_lora_rank", s->kv_lora);
    make_u32(k, "attention.value_residual_mix_lora_rank", s->nope);
    make_u32(k, "attention.gate_lora_rank", s->dim_v);
    bool qwen = !strcmp(s->arch, "arwkv7"); /* a transformer's norms and feed-forward blocks */
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        uint64_t v = i ? s->nope : s->kv_lora;
        if (qwen) {
            make_norm(k, i, "attn_norm", s->embd);
            make_norm(k, i, "ffn_norm", s->embd);
            make_ffn(k, i, s->ff);
        } else {
            rwkv_norms(k, i);
        }
        squares(k, i, full, sizeof full / sizeof *full);
        make_tensor(k, i, "time_mix_w0.weight", s->embd, 0, 0);
        make_tensor(k, i, "time_mix_w1.weight", s->embd, s->q_lora, 0);
        make_tensor(k, i, "time_mix_w2.weight", s->q_lora, s->embd, 0);
        make_tensor(k, i, "time_mix_a0.weight", s->embd, 0, 0);
        make_tensor(k, i, "time_mix_a1.weight", s->embd, s->kv_lora, 0);
        make_tensor(k, i, "time_mix_a2.weight", s->kv_lora, s->embd, 0);
        make_tensor(k, i, "time_mix_v0.weight", s->embd, 0, 0);
        make_tensor(k, i, "time_mix_v1.weight", s->embd, v, 0);
        make_tensor(k, i, "time_mix_v2.weight", v, s->embd, 0);
        make_tensor(k, i, "time_mix_g1.weight", s->embd, s->dim_v, 0);
        make_tensor(k, i, "time_mix_g2.weight", s->dim_v, s->embd, 0);
        make_tensor(k, i, "time_mix_k_k.weight", s->embd, 0, 0);
        make_tensor(k, i, "time_mix_k_a.weight", s->embd, 0, 0);
        make_tensor(k, i, "time_mix_r_k.weight", s->embd, 0, 0);
        make_typed(k, i, "time_mix_lerp_fused.weight", GGML_F32, s->embd, 1, 1, 6);
        if (qwen)
            continue;
        make_tensor(k, i, "channel_mix_lerp_k.weight", s->embd, 1, 1);
        make_tensor(k, i, "channel_mix_key.weight", s->embd, s->ff, 0);
        make_tensor(k, i, "channel_mix_value.weight", s->ff, s->embd, 0);
    }
}
