/* Transformer blocks: what nearly every architecture has, with its deviations as bits of `has`. */
#include "shape.h"

#include "builders.h"

#include <stdio.h>

void make_attention(struct make *k, int i)
{
    const struct shape *s = k->s;
    uint64_t dim = shape_dim(s), q = s->heads * dim, kv = s->kv * dim;
    bool bias = s->has & HAS_QKV_BIAS;
    if (s->has & HAS_QKV) {
        make_tensor(k, i, "attn_qkv.weight", s->embd, q + 2 * kv, 0);
        if (bias)
            make_tensor(k, i, "attn_qkv.bias", q + 2 * kv, 0, 0);
    } else {
        make_tensor(k, i, "attn_q.weight", s->embd, q, 0);
        make_tensor(k, i, "attn_k.weight", s->embd, kv, 0);
        make_tensor(k, i, "attn_v.weight", s->embd, kv, 0);
        if (bias) {
            make_tensor(k, i, "attn_q.bias", q, 0, 0);
            make_tensor(k, i, "attn_k.bias", kv, 0, 0);
            make_tensor(k, i, "attn_v.bias", kv, 0, 0);
        }
    }
    make_tensor(k, i, "attn_output.weight", q, s->embd, 0);
    if (s->has & HAS_O_BIAS)
        make_tensor(k, i, "attn_output.bias", s->embd, 0, 0);
    if (s->has & (HAS_QK_NORM | HAS_QK_NORM_WIDE)) {
        bool wide = s->has & HAS_QK_NORM_WIDE;
        make_tensor(k, i, "attn_q_norm.weight", wide ? q : dim, 0, 0);
        make_tensor(k, i, "attn_k_norm.weight", wide ? kv : dim, 0, 0);
    }
    if (s->has & HAS_ATTN_GATE)
        make_tensor(k, i, "attn_gate.weight", s->embd, q, 0);
    if (s->has & HAS_SINKS)
        make_tensor(k, i, "attn_sinks.weight", s->heads, 0, 0);
}

void make_ffn(struct make *k, int i, uint64_t ff)
{
    const struct shape *s = k->s;
    if (!(s->has & (HAS_NO_GATE | HAS_GATE_UP)))
        make_tensor(k, i, "ffn_gate.weight", s->embd, ff, 0);
    make_tensor(k, i, "ffn_up.weight", s->embd, s->has & HAS_GATE_UP ? 2 * ff : ff, 0);
    make_tensor(k, i, "ffn_down.weight", ff, s->embd, 0);
    if (s->has & HAS_FFN_BIAS) {
        make_tensor(k, i, "ffn_up.bias", ff, 0, 0);
        make_tensor(k, i, "ffn_down.bias", s->embd, 0, 0);
    }
    if (s->has & HAS_GATE_BIAS)
        make_tensor(k, i, "ffn_gate.bias", ff, 0, 0);
}

static void shared_experts(struct make *k, int i)
{
    const struct shape *s = k->s;
    if (s->has & HAS_SHARED_GATE)
        make_tensor(k, i, "ffn_gate_inp_shexp.weight", s->embd, 0, 0);
    make_tensor(k, i, "ffn_gate_shexp.weight", s->embd, s->ff_shared, 0);
    make_tensor(k, i, "ffn_up_shexp.weight", s->embd, s->ff_shared, 0);
    make_tensor(k, i, "ffn_down_shexp.weight", s->ff_shared, s->embd, 0);
}

void make_experts(struct make *k, int i)
{
    const struct shape *s = k->s;
    uint64_t ff = s->ff_exp ? s->ff_exp : s->ff, n = s->experts;
    make_tensor(k, i, "ffn_gate_inp.weight", s->embd, n, 0);
    make_tensor(k, i, "ffn_gate_exps.weight", s->embd, ff, n);
    make_tensor(k, i, "ffn_up_exps.weight", s->embd, ff, n);
    make_tensor(k, i, "ffn_down_exps.weight", ff, s->embd, n);
    if (s->has & HAS_PROBS_B)
        make_tensor(k, i, "exp_probs_b.bias", n, 0, 0);
    if (s->has & HAS_BARE_PROBS_B)
        make_tensor(k, i, "exp_probs_b", n, 0, 0);
    if (s->has & HAS_EXPERT_BIAS) {
        make_tensor(k, i, "ffn_gate_inp.bias", n, 0, 0);
        make_tensor(k, i, "ffn_gate_exps.bias", ff, n, 0);
        make_tensor(k, i, "ffn_up_exps.bias", ff, n, 0);
        make_tensor(k, i, "ffn_down_exps.bias", s->embd, n, 0);
    }
    if (s->ff_shared)
        shared_experts(k, i);
}

/* The layers that draft further tokens: a block with its own embeddings, products and norms. */
static void draft_layer(struct make *k, int i)
{
    const struct shape *s = k->s;
    make_tensor(k, i, "nextn.eh_proj.weight", 2 * (uint64_t)s->embd, s->embd, 0);
    make_tensor(k, i, "nextn.embed_tokens.weight", s->embd, s->vocab, 0);
    make_tensor(k, i, "nextn.enorm.weight", s->embd, 0, 0);
    make_tensor(k, i, "nextn.hnorm.weight", s->embd, 0, 0);
    make_tensor(k, i, "nextn.shared_head_head.weight", s->embd, s->vocab, 0);
    make_tensor(k, i, "nextn.shared_head_norm.weight", s->embd, 0, 0);
}

void shape_plain(struct make *k)
{
    const struct shape *s = k->s;
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        if (!(s->has & HAS_NO_ATTN_NORM))
            make_norm(k, i, "attn_norm", s->embd);
        if (s->has & HAS_ATTN_NORM_2)
            make_norm(k, i, "attn_norm_2", s->embd);
        make_attention(k, i);
        if (s->has & HAS_ATTN_OUT_NORM)
            make_norm(k, i, "attn_output_norm", s->embd);
        if (s->has & (HAS_POST_NORMS | HAS_POST_ATTN_NORM))
            make_norm(k, i, "post_attention_norm", s->embd);
        if (!(s->has & HAS_NO_FFN_NORM))
            make_norm(k, i, "ffn_norm", s->embd);
        if (s->experts && (uint32_t)i >= s->lead)
            make_experts(k, i);
        if (!s->experts || (uint32_t)i < s->lead || (s->has & HAS_DENSE_TOO))
            make_ffn(k, i, s->ff);
        if (s->has & HAS_POST_NORMS)
            make_norm(k, i, "post_ffw_norm", s->embd);
        if (s->has & HAS_BARE_POST_NORMS) {
            make_tensor(k, i, "post_attention_norm", s->embd, 0, 0);
            make_tensor(k, i, "post_ffw_norm", s->embd, 0, 0);
        }
        if (s->has & HAS_LAYER_OUT_NORM)
            make_norm(k, i, "layer_output_norm", s->embd);
        if ((uint32_t)i + s->nextn >= s->layers)
            draft_layer(k, i);
    }
}
