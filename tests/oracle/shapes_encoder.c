/* Encoders: BERT and its relatives, T5's two halves. They keep no cache. */
#include "shape.h"

#include "builders.h"

#include "gguf/model.h"

#include <stdio.h>
#include <string.h>

/* The matrices and norms that BERT's relatives share; norms come after the sums and always have biases. */
static void bert_layer(struct make *k, int i)
{
    const struct shape *s = k->s;
    make_attention(k, i);
    make_norm(k, i, "attn_output_norm", s->embd);
    if (s->has & HAS_ATTN_NORM_2)
        make_norm(k, i, "attn_norm_2", s->embd);
    if (s->experts && i % 2) {
        make_tensor(k, i, "ffn_gate_inp.weight", s->embd, s->experts, 0);
        make_tensor(k, i, "ffn_up_exps.weight", s->embd, s->ff, s->experts);
        make_tensor(k, i, "ffn_down_exps.weight", s->ff, s->embd, s->experts);
    } else {
        make_ffn(k, i, s->ff);
        if ((s->has & HAS_O_BIAS) && !(s->has & HAS_FFN_BIAS)) /* gated, with one bias */
            make_tensor(k, i, "ffn_down.bias", s->embd, 0, 0);
    }
    make_norm(k, i, "layer_output_norm", s->embd);
}

static void classifier(struct make *k)
{
    uint64_t embd = k->s->embd;
    make_tensor(k, -1, "cls.weight", embd, embd, 0);
    make_tensor(k, -1, "cls.bias", embd, 0, 0);
    make_tensor(k, -1, "cls.output.weight", embd, 1, 0);
    make_tensor(k, -1, "cls.output.bias", 1, 0, 0);
}

void shape_bert(struct make *k)
{
    const struct shape *s = k->s;
    make_bool(k, "attention.causal", false);
    make_u32(k, "pooling_type", s->has & HAS_RANK ? 4 : 1);
    if (s->has & HAS_RANK)
        classifier(k);
    if (s->tok != TOK_BERT) /* whose tokenizer has it */
        gguf_write_u32(&k->w, "tokenizer.ggml.token_type_count", 1);
    make_tensor(k, -1, "token_embd.weight", s->embd, s->vocab, 0);
    make_tensor(k, -1, "token_types.weight", s->embd, s->tok == TOK_BERT ? 2 : 1, 0);
    if (s->has & HAS_POSITIONS)
        make_tensor(k, -1, "position_embd.weight", s->embd, s->ctx, 0);
    make_norm(k, -1, "token_embd_norm", s->embd);
    for (int i = 0; i < (int)s->layers; i++)
        bert_layer(k, i);
}

void shape_modern_bert(struct make *k)
{
    const struct shape *s = k->s;
    make_bool(k, "attention.causal", false);
    make_u32(k, "pooling_type", 1);
    make_tensor(k, -1, "token_embd.weight", s->embd, s->vocab, 0);
    make_norm(k, -1, "token_embd_norm", s->embd);
    make_norm(k, -1, "output_norm", s->embd);
    for (int i = 0; i < (int)s->layers; i++) {
        if (i)
            make_norm(k, i, "attn_norm", s->embd);
        make_attention(k, i);
        make_norm(k, i, "ffn_norm", s->embd);
        make_ffn(k, i, s->ff);
    }
}

/* Made like a decoder, but without a cache; its last norm may be named after the encoder. */
void shape_euro_bert(struct make *k)
{
    const struct shape *s = k->s;
    make_bool(k, "attention.causal", false);
    make_u32(k, "pooling_type", 1);
    make_tensor(k, -1, "token_embd.weight", s->embd, s->vocab, 0);
    make_norm(k, -1, strcmp(s->arch, "neo-bert") ? "output_norm" : "enc.output_norm", s->embd);
    for (int i = 0; i < (int)s->layers; i++) {
        make_norm(k, i, "attn_norm", s->embd);
        make_attention(k, i);
        make_norm(k, i, "ffn_norm", s->embd);
        make_ffn(k, i, s->ff);
    }
}

/* One tensor of T5, named enc.blk.N.… or dec.blk.N.…; its biases of positions stand in the first layer only.
 */
static void t5_tensor(struct make *k, const char *half, int i, const char *name, uint64_t a, uint64_t b)
{
    char full[64];
    uint64_t ne[4] = {a, b, 0, 0};
    snprintf(full, sizeof full, "%s.blk.%d.%s", half, i, name);
    gguf_write_tensor(&k->w, full, quant_type(k->s, i, full, ne), ne);
}

static void t5_attention(struct make *k, const char *half, int i, const char *prefix, bool positions)
{
    const struct shape *s = k->s;
    uint64_t wide = (uint64_t)s->heads * shape_dim(s);
    const char *const names[] = {"q", "k", "v"};
    char name[48];
    snprintf(name, sizeof name, "%s_norm.weight", prefix);
    t5_tensor(k, half, i, name, s->embd, 0);
    if (positions) {
        snprintf(name, sizeof name, "%s_rel_b.weight", prefix);
        t5_tensor(k, half, i, name, s->heads, 32);
    }
    for (int j = 0; j < 3; j++) {
        snprintf(name, sizeof name, "%s_%s.weight", prefix, names[j]);
        t5_tensor(k, half, i, name, s->embd, wide);
    }
    snprintf(name, sizeof name, "%s_o.weight", prefix);
    t5_tensor(k, half, i, name, wide, s->embd);
}

static void t5_ffn(struct make *k, const char *half, int i)
{
    const struct shape *s = k->s;
    t5_tensor(k, half, i, "ffn_norm.weight", s->embd, 0);
    t5_tensor(k, half, i, "ffn_gate.weight", s->embd, s->ff);
    t5_tensor(k, half, i, "ffn_up.weight", s->embd, s->ff);
    t5_tensor(k, half, i, "ffn_down.weight", s->ff, s->embd);
}

void shape_t5_encoder(struct make *k)
{
    const struct shape *s = k->s;
    make_u32(k, "attention.relative_buckets_count", 32);
    make_tensor(k, -1, "token_embd.weight", s->embd, s->vocab, 0);
    make_tensor(k, -1, "enc.output_norm.weight", s->embd, 0, 0);
    for (int i = 0; i < (int)s->layers; i++) {
        t5_attention(k, "enc", i, "attn", !i);
        t5_ffn(k, "enc", i);
    }
}

void shape_t5(struct make *k)
{
    const struct shape *s = k->s;
    shape_t5_encoder(k);
    make_tensor(k, -1, "dec.output_norm.weight", s->embd, 0, 0);
    if (!(s->has & HAS_TIED))
        make_tensor(k, -1, "output.weight", s->embd, s->vocab, 0);
    for (int i = 0; i < (int)s->layers; i++) {
        t5_attention(k, "dec", i, "attn", !i);
        t5_attention(k, "dec", i, "cross_attn", false);
        t5_ffn(k, "dec", i);
    }
}
