/* Models that stand alone: tensors beside the plain transformer's that no other family has. Tests only. */
#include "shape.h"

#include "builders.h"

#include <stdio.h>

#define MAX_LAYERS 512

/* Norms of queries and keys with a weight and a bias for each value of each head. */
void shape_chameleon(struct make *k)
{
    const struct shape *s = k->s;
    uint64_t dim = shape_dim(s);
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        make_tensor(k, i, "attn_q_norm.weight", dim, s->heads, 0);
        make_tensor(k, i, "attn_k_norm.weight", dim, s->kv, 0);
        make_tensor(k, i, "attn_q_norm.bias", dim, s->heads, 0);
        make_tensor(k, i, "attn_k_norm.bias", dim, s->kv, 0);
        make_attention(k, i);
        make_norm(k, i, "ffn_norm", s->embd);
        make_ffn(k, i, s->ff);
    }
}

/* Pairs of experts share a small one as wide as a head. */
void shape_grovemoe(struct make *k)
{
    const struct shape *s = k->s;
    uint64_t width = s->dim, n = s->experts / 2;
    make_u32(k, "expert_chunk_feed_forward_length", s->dim);
    make_f32(k, "expert_group_scale", 0.05f);
    make_u32(k, "experts_per_group", 2);
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        make_attention(k, i);
        make_norm(k, i, "ffn_norm", s->embd);
        make_experts(k, i);
        make_tensor(k, i, "ffn_gate_chexps.weight", s->embd, width, n);
        make_tensor(k, i, "ffn_up_chexps.weight", s->embd, width, n);
        make_tensor(k, i, "ffn_down_chexps.weight", width, s->embd, n);
    }
}

/* Each matrix twice: for text, and for pictures. */
void shape_cogvlm(struct make *k)
{
    const struct shape *s = k->s;
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        make_attention(k, i);
        make_tensor(k, i, "vis_attn_qkv.weight", s->embd, 3ull * s->embd, 0);
        make_tensor(k, i, "vis_attn_output.weight", s->embd, s->embd, 0);
        make_norm(k, i, "ffn_norm", s->embd);
        make_ffn(k, i, s->ff);
        make_tensor(k, i, "vis_gate.weight", s->embd, s->ff, 0);
        make_tensor(k, i, "vis_up.weight", s->embd, s->ff, 0);
        make_tensor(k, i, "vis_down.weight", s->ff, s->embd, 0);
    }
}

/* Windows ('M') with rotary positions, full attention ('*') without; shared experts in two matrices. */
void shape_granite_swa(struct make *k)
{
    const struct shape *s = k->s;
    bool slides[MAX_LAYERS] = {false};
    for (uint32_t i = 0; i < s->layers; i++)
        slides[i] = shape_kind(s, i) == 'M';
    gguf_write_bools(&k->w, "granite_swa.attention.sliding_window_pattern", slides, s->layers);
    gguf_write_bools(&k->w, "granite_swa.attention.rope_pattern", slides, s->layers);
    make_u32(k, "attention.head_count_kv", s->kv);
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        make_attention(k, i);
        make_norm(k, i, "ffn_norm", s->embd);
        if (!s->experts) {
            make_ffn(k, i, s->ff);
            continue;
        }
        make_tensor(k, i, "ffn_gate_inp.weight", s->embd, s->experts, 0);
        make_tensor(k, i, "ffn_gate_up_exps.weight", s->embd, 2ull * s->ff, s->experts);
        make_tensor(k, i, "ffn_down_exps.weight", s->ff, s->embd, s->experts);
        make_tensor(k, i, "ffn_up_shexp.weight", s->embd, 2ull * s->ff_shared, 0);
        make_tensor(k, i, "ffn_down_shexp.weight", s->ff_shared, s->embd, 0);
    }
}

/* MiniMax: attention without softmax ('M'), a plain layer ('*') behind each seven; all have experts. */
void shape_minimax_01(struct make *k)
{
    const struct shape *s = k->s;
    uint64_t heads = (uint64_t)s->heads * s->dim;
    make_u32(k, "attention.head_count_kv", s->kv);
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        if (shape_kind(s, (uint32_t)i) == 'M') {
            make_norm(k, i, "attn_norm_2", heads);
            make_tensor(k, i, "attn_qkv.weight", s->embd, 3 * heads, 0);
            make_tensor(k, i, "attn_gate.weight", s->embd, heads, 0);
            make_tensor(k, i, "attn_output.weight", heads, s->embd, 0);
        } else {
            make_attention(k, i);
        }
        make_norm(k, i, "ffn_norm", s->embd);
        make_experts(k, i);
    }
}
