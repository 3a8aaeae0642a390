/* Transformers whose blocks differ too much for the plain builder: latent attention, Gemma 3n. */
#include "shape.h"

#include "builders.h"

#include "gguf/model.h"

#include <stdio.h>

void make_latent_attention(struct make *k, int i)
{
    const struct shape *s = k->s;
    uint64_t head = s->nope + s->rope;
    if (s->q_lora) {
        make_tensor(k, i, "attn_q_a.weight", s->embd, s->q_lora, 0);
        make_tensor(k, i, "attn_q_a_norm.weight", s->q_lora, 0, 0);
        make_tensor(k, i, "attn_q_b.weight", s->q_lora, s->heads * head, 0);
    } else {
        make_tensor(k, i, "attn_q.weight", s->embd, s->heads * head, 0);
    }
    make_tensor(k, i, "attn_kv_a_mqa.weight", s->embd, s->kv_lora + s->rope, 0);
    make_tensor(k, i, "attn_kv_a_norm.weight", s->kv_lora, 0, 0);
    make_tensor(k, i, "attn_k_b.weight", s->nope, s->kv_lora, s->heads);
    make_tensor(k, i, "attn_v_b.weight", s->kv_lora, s->dim_v, s->heads);
    make_tensor(k, i, "attn_output.weight", (uint64_t)s->heads * s->dim_v, s->embd, 0);
}

/* What chooses the keys that a query attends to (DeepSeek's sparse attention): `groups` heads of `state`.
 * Layers whose letter is '-' use the choice of the layer before. */
static void indexer(struct make *k, int i)
{
    const struct shape *s = k->s;
    if (shape_kind(s, (uint32_t)i) == '-')
        return;
    make_tensor(k, i, "indexer.k_norm.weight", s->state, 0, 0);
    make_tensor(k, i, "indexer.k_norm.bias", s->state, 0, 0);
    make_tensor(k, i, "indexer.proj.weight", s->embd, s->groups, 0);
    make_tensor(k, i, "indexer.attn_k.weight", s->embd, s->state, 0);
    make_tensor(k, i, "indexer.attn_q_b.weight", s->q_lora, (uint64_t)s->groups * s->state, 0);
}

static void indexer_keys(struct make *k)
{
    const struct shape *s = k->s;
    bool whole[512] = {false};
    char key[64];
    make_u32(k, "attention.indexer.head_count", s->groups);
    make_u32(k, "attention.indexer.key_length", s->state);
    make_u32(k, "attention.indexer.top_k", 2048);
    snprintf(key, sizeof key, "%s.attention.indexer.types", s->arch);
    for (uint32_t i = 0; i < s->layers; i++)
        whole[i] = shape_kind(s, i) != '-';
    if (s->pattern)
        gguf_write_bools(&k->w, key, whole, s->layers);
}

void shape_mla(struct make *k)
{
    const struct shape *s = k->s;
    if (s->groups)
        indexer_keys(k);
    make_u32(k, "attention.head_count_kv", 1);
    make_u32(k, "attention.kv_lora_rank", s->kv_lora);
    if (s->q_lora)
        make_u32(k, "attention.q_lora_rank", s->q_lora);
    make_u32(k, "attention.key_length", s->kv_lora + s->rope);
    make_u32(k, "attention.value_length", s->kv_lora);
    make_u32(k, "attention.key_length_mla", s->nope + s->rope);
    make_u32(k, "attention.value_length_mla", s->dim_v);
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        make_latent_attention(k, i);
        if (s->groups)
            indexer(k, i);
        make_norm(k, i, "ffn_norm", s->embd);
        if (s->experts && (uint32_t)i >= s->lead)
            make_experts(k, i);
        else
            make_ffn(k, i, s->ff);
    }
}

/* Latent attention whose caches are those of plain attention. */
void shape_minicpm3(struct make *k)
{
    const struct shape *s = k->s;
    uint64_t head = s->nope + s->rope;
    make_u32(k, "attention.head_count_kv", s->kv);
    make_u32(k, "attention.kv_lora_rank", s->kv_lora);
    if (s->q_lora)
        make_u32(k, "attention.q_lora_rank", s->q_lora);
    make_u32(k, "attention.key_length", s->nope + s->rope);
    make_head(k);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        if (s->q_lora) {
            make_tensor(k, i, "attn_q_a.weight", s->embd, s->q_lora, 0);
            make_tensor(k, i, "attn_q_a_norm.weight", s->q_lora, 0, 0);
            make_tensor(k, i, "attn_q_b.weight", s->q_lora, s->heads * head, 0);
        } else {
            make_tensor(k, i, "attn_q.weight", s->embd, s->heads * head, 0);
        }
        make_tensor(k, i, "attn_kv_a_mqa.weight", s->embd, s->kv_lora + s->rope, 0);
        make_tensor(k, i, "attn_kv_a_norm.weight", s->kv_lora, 0, 0);
        make_tensor(k, i, "attn_kv_b.weight", s->kv_lora, (uint64_t)s->heads * (s->nope + s->dim_v), 0);
        make_tensor(k, i, "attn_output.weight", (uint64_t)s->heads * s->dim_v, s->embd, 0);
        make_norm(k, i, "ffn_norm", s->embd);
        make_ffn(k, i, s->ff);
    }
}

/* What Gemma 3n adds to each layer: embeddings a layer (256 wide), four alternating streams, low-rank
 * shortcuts. */
static void gemma3n_extras(struct make *k, int i)
{
    const struct shape *s = k->s;
    make_tensor(k, i, "inp_gate.weight", s->embd, 256, 0);
    make_tensor(k, i, "proj.weight", 256, s->embd, 0);
    make_tensor(k, i, "post_norm.weight", s->embd, 0, 0);
    make_tensor(k, i, "altup_correct_coef.weight", 4, 4, 0);
    make_tensor(k, i, "altup_correct_scale.weight", s->embd, 0, 0);
    make_tensor(k, i, "altup_predict_coef.weight", 4, 16, 0);
    make_tensor(k, i, "altup_router.weight", s->embd, 4, 0);
    make_tensor(k, i, "altup_router_norm.weight", s->embd, 0, 0);
    make_tensor(k, i, "laurel_l.weight", s->embd, 64, 0);
    make_tensor(k, i, "laurel_r.weight", 64, s->embd, 0);
    make_tensor(k, i, "laurel_post_norm.weight", s->embd, 0, 0);
}

void shape_gemma3n(struct make *k)
{
    const struct shape *s = k->s;
    make_head(k);
    make_tensor(k, -1, "per_layer_token_embd.weight", 256 * (uint64_t)s->layers, s->vocab, 0);
    make_tensor(k, -1, "per_layer_model_proj.weight", s->embd, 256 * (uint64_t)s->layers, 0);
    make_tensor(k, -1, "per_layer_proj_norm.weight", 256, 0, 0);
    make_tensor(k, -1, "altup_proj.weight", s->embd, s->embd, 3);
    make_tensor(k, -1, "altup_unembd_proj.weight", s->embd, s->embd, 3);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        make_attention(k, i);
        make_norm(k, i, "post_attention_norm", s->embd);
        make_norm(k, i, "ffn_norm", s->embd);
        make_ffn(k, i, s->ff);
        make_norm(k, i, "post_ffw_norm", s->embd);
        gemma3n_extras(k, i);
    }
}

/* ---- Gemma 4: full attention ('*') has wider heads, and where `groups` is set, that many KV heads and no V
 * ---- */

static void gemma4_keys(struct make *k)
{
    const struct shape *s = k->s;
    uint32_t kv[512] = {0};
    bool slides[512] = {false};
    for (uint32_t i = 0; i < s->layers; i++) {
        slides[i] = shape_kind(s, i) == 'M';
        kv[i] = !slides[i] && s->groups ? s->groups : s->kv;
    }
    make_u32s(k, "attention.head_count_kv", kv);
    gguf_write_bools(&k->w, "gemma4.attention.sliding_window_pattern", slides, s->layers);
    make_u32(k, "attention.key_length_swa", s->dim / 2);
    make_u32(k, "attention.value_length_swa", s->dim / 2);
    make_u32(k, "rope.dimension_count", s->dim);
    make_u32(k, "rope.dimension_count_swa", s->dim / 2);
}

static void gemma4_attention(struct make *k, int i, bool own_cache)
{
    const struct shape *s = k->s;
    bool full = shape_kind(s, (uint32_t)i) == '*';
    uint64_t dim = full ? s->dim : s->dim / 2, kv = dim * (full && s->groups ? s->groups : s->kv);
    make_norm(k, i, "attn_norm", s->embd);
    make_tensor(k, i, "attn_q.weight", s->embd, s->heads * dim, 0);
    make_tensor(k, i, "attn_q_norm.weight", dim, 0, 0);
    if (own_cache) {
        make_tensor(k, i, "attn_k.weight", s->embd, kv, 0);
        make_tensor(k, i, "attn_k_norm.weight", dim, 0, 0);
    }
    if (own_cache && !(full && s->groups))
        make_tensor(k, i, "attn_v.weight", s->embd, kv, 0);
    make_tensor(k, i, "attn_output.weight", s->heads * dim, s->embd, 0);
    make_norm(k, i, "post_attention_norm", s->embd);
}

static void gemma4_experts(struct make *k, int i)
{
    const struct shape *s = k->s;
    make_tensor(k, i, "ffn_gate_inp.weight", s->embd, s->experts, 0);
    make_tensor(k, i, "ffn_gate_inp.scale", s->embd, 0, 0);
    make_norm(k, i, "pre_ffw_norm_2", s->embd);
    make_norm(k, i, "post_ffw_norm_1", s->embd);
    make_norm(k, i, "post_ffw_norm_2", s->embd);
    make_tensor(k, i, "ffn_gate_up_exps.weight", s->embd, 2 * (uint64_t)s->ff_exp, s->experts);
    make_tensor(k, i, "ffn_down_exps.weight", s->ff_exp, s->embd, s->experts);
    make_tensor(k, i, "ffn_down_exps.scale", s->experts, 0, 0);
}

void shape_gemma4(struct make *k)
{
    const struct shape *s = k->s;
    bool per_layer = !s->groups;
    gemma4_keys(k);
    make_head(k);
    make_tensor(k, -1, "rope_freqs.weight", s->dim / 2, 0, 0);
    if (per_layer) {
        make_tensor(k, -1, "per_layer_token_embd.weight", 256 * (uint64_t)s->layers, s->vocab, 0);
        make_tensor(k, -1, "per_layer_model_proj.weight", s->embd, 256 * (uint64_t)s->layers, 0);
        make_tensor(k, -1, "per_layer_proj_norm.weight", 256, 0, 0);
    }
    for (int i = 0; i < (int)s->layers; i++) {
        gemma4_attention(k, i, !per_layer || i < (int)s->layers - 18);
        make_tensor(k, i, "layer_output_scale.weight", 1, 0, 0);
        make_norm(k, i, "ffn_norm", s->embd);
        make_ffn(k, i, s->ff);
        make_norm(k, i, "post_ffw_norm", s->embd);
        if (s->experts)
            gemma4_experts(k, i);
        if (per_layer) {
            make_tensor(k, i, "inp_gate.weight", s->embd, 256, 0);
            make_tensor(k, i, "proj.weight", 256, s->embd, 0);
            make_tensor(k, i, "post_norm.weight", s->embd, 0, 0);
        }
    }
}
