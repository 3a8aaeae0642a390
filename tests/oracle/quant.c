/* Which type a tensor gets in a quantisation mix. Rules of llama-quantize (src/llama-quant.cpp of llama.cpp):
 * one base type; the output, the values and the down projections of some layers keep more bits; rows that the
 * block does not divide fall back to a type with smaller blocks; norms, routers and small recurrent tensors
 * stay as they are. */
#include "shape.h"

#include "base/mem.h"
#include "gguf/model.h"

#include <string.h>

struct mix_row {
    uint32_t file_type;
    uint32_t base, more, output, qkv, values_70b;
};

static const struct mix_row mixes[] = {
    [MIX_F16] = {1, GGML_F16, GGML_F16, GGML_F16, GGML_F16, GGML_F16},
    [MIX_BF16] = {32, GGML_BF16, GGML_BF16, GGML_BF16, GGML_BF16, GGML_BF16},
    [MIX_Q8_0] = {7, GGML_Q8_0, GGML_Q8_0, GGML_Q8_0, GGML_Q8_0, GGML_Q8_0},
    [MIX_Q4_K_M] = {15, GGML_Q4_K, GGML_Q6_K, GGML_Q6_K, GGML_Q5_K, GGML_Q5_K},
    [MIX_Q5_K_M] = {17, GGML_Q5_K, GGML_Q6_K, GGML_Q6_K, GGML_Q6_K, GGML_Q5_K},
    [MIX_Q6_K] = {18, GGML_Q6_K, GGML_Q6_K, GGML_Q6_K, GGML_Q6_K, GGML_Q6_K},
    [MIX_Q4_0] = {2, GGML_Q4_0, GGML_Q4_0, GGML_Q6_K, GGML_Q4_0, GGML_Q4_0},
    [MIX_IQ4_XS] = {30, GGML_IQ4_XS, GGML_Q5_K, GGML_Q6_K, GGML_IQ4_XS, GGML_Q5_K},
    [MIX_Q3_K_M] = {12, GGML_Q3_K, GGML_Q5_K, GGML_Q6_K, GGML_Q4_K, GGML_Q4_K},
    [MIX_MXFP4] = {38, GGML_Q8_0, GGML_Q8_0, GGML_Q8_0, GGML_Q8_0, GGML_Q8_0},
};

/* Kept in full precision whatever the mix. */
static const char *const keep_f32[] = {
    "ffn_gate_inp",     "position_embd",        "token_types",      "ssm_conv1d",
    "shortconv.conv",   "time_mix_first",       "time_mix_w1",      "time_mix_w2",
    "time_mix_decay_w", "time_mix_lerp",        "channel_mix_lerp", "altup",
    "laurel",           "per_layer_model_proj", "attn_rel_b",       "ssm_dt.weight",
};
static const char *const keep_f16[] = {"time_mix_v1", "time_mix_v2", "time_mix_a1",
                                       "time_mix_a2", "time_mix_g1", "time_mix_g2"};

static bool one_of(const char *name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strstr(name, list[i]))
            return true;
    return false;
}

static bool more_bits(uint32_t i, uint32_t n)
{
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

static uint32_t by_role(const struct shape *s, const struct mix_row *row, int layer, const char *name,
                        bool experts)
{
    bool more = layer >= 0 && more_bits((uint32_t)layer, s->layers), eight = s->experts == 8;
    if (!strcmp(name, "output.weight") || ((s->has & HAS_TIED) && !strcmp(name, "token_embd.weight")))
        return row->output;
    if (s->mix == MIX_MXFP4)
        return experts ? GGML_MXFP4 : row->base;
    bool k_quant =
        s->mix == MIX_Q4_K_M || s->mix == MIX_Q5_K_M || s->mix == MIX_IQ4_XS || s->mix == MIX_Q3_K_M;
    if (!k_quant)
        return row->base;
    if (strstr(name, "attn_v.weight") || strstr(name, "attn_kv_b.weight"))
        return eight ? GGML_Q8_0 : more ? row->more : s->layers == 80 ? row->values_70b : row->base;
    if (strstr(name, "attn_k.weight") && eight)
        return GGML_Q8_0;
    if (strstr(name, "ffn_down") && more)
        return row->more;
    if (strstr(name, "attn_output.weight") && eight)
        return GGML_Q5_K;
    if (strstr(name, "attn_qkv.weight"))
        return row->qkv;
    return row->base;
}

/* Rows that no block of 256 divides. */
static uint32_t fall_back(uint32_t type)
{
    switch (type) {
    case GGML_Q3_K:
    case GGML_IQ4_XS: return GGML_IQ4_NL;
    case GGML_Q4_K: return GGML_Q5_0;
    case GGML_Q5_K: return GGML_Q5_1;
    case GGML_Q6_K: return GGML_Q8_0;
    default: return GGML_F16;
    }
}

uint32_t quant_type(const struct shape *s, int layer, const char *name, const uint64_t ne[4])
{
    const struct mix_row *row = &mixes[s->mix];
    size_t n = strlen(name);
    bool weight = n > 7 && !strcmp(name + n - 7, ".weight");
    if (!ne[1] || !weight || strstr(name, "_norm.weight") || one_of(name, keep_f32, TABLE_COUNT(keep_f32)))
        return GGML_F32;
    if (one_of(name, keep_f16, TABLE_COUNT(keep_f16)))
        return GGML_F16;
    uint32_t type = by_role(s, row, layer, name, ne[2] != 0);
    if (ne[0] % ggml_type_info(type)->block)
        type = fall_back(type);
    if (ne[0] % ggml_type_info(type)->block)
        type = GGML_F16;
    return type;
}

uint32_t quant_file_type(enum mix mix)
{
    return mixes[mix].file_type;
}
