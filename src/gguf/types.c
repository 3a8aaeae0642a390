/* The format's number tables: tensor types and file types. Layer gguf; pure. */
#include "gguf/model_priv.h"

#include <stddef.h>

static const struct ggml_type_info types[] = {
#define GGML_TYPE(id, name, word_, block_, bytes_) [id] = {word_, block_, bytes_},
#include "gguf/types.def"
#undef GGML_TYPE
};

#define GGML_TYPE(id, name, word_, block_, bytes_)                                                           \
    _Static_assert(((block_) & ((block_)-1)) == 0, "blocks are counted by shifts");
#include "gguf/types.def"
#undef GGML_TYPE

_Static_assert(sizeof types / sizeof *types <= GGML_TYPE_LIMIT, "model.c counts bytes by type");

const struct ggml_type_info *ggml_type_info(uint32_t type)
{
    if (type >= sizeof types / sizeof *types || !types[type].word)
        return NULL;
    return &types[type];
}

static const struct {
    const char *word;
    uint32_t type;
} aliases[] = {
    {"16", GGML_F16}, {"fp16", GGML_F16},  {"8", GGML_Q8_0}, {"int8", GGML_Q8_0},
    {"4", GGML_Q4_0}, {"int4", GGML_Q4_0}, {"32", GGML_F32}, {"fp32", GGML_F32},
};

bool ggml_type_from(struct str word, uint32_t *ret_type)
{
    for (uint32_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (types[i].word && str_ieq(word, str_from(types[i].word))) {
            *ret_type = i;
            return true;
        }
    }
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
        if (str_ieq(word, str_from(aliases[i].word))) {
            *ret_type = aliases[i].type;
            return true;
        }
    }
    return false;
}

bool ggml_row_bytes(uint32_t type, uint64_t n, uint64_t *ret_bytes)
{
    const struct ggml_type_info *info = ggml_type_info(type);
    uint64_t bytes;
    if (!info || n % info->block || __builtin_mul_overflow(n / info->block, info->block_bytes, &bytes))
        return false;
    *ret_bytes = bytes;
    return true;
}

/* general.file_type; the gaps are formats that llama.cpp has dropped. */
static const char *const file_types[] = {
    [0] = "F32",     [1] = "F16",     [2] = "Q4_0",       [3] = "Q4_1",    [7] = "Q8_0",     [8] = "Q5_0",
    [9] = "Q5_1",    [10] = "Q2_K",   [11] = "Q3_K_S",    [12] = "Q3_K_M", [13] = "Q3_K_L",  [14] = "Q4_K_S",
    [15] = "Q4_K_M", [16] = "Q5_K_S", [17] = "Q5_K_M",    [18] = "Q6_K",   [19] = "IQ2_XXS", [20] = "IQ2_XS",
    [21] = "Q2_K_S", [22] = "IQ3_XS", [23] = "IQ3_XXS",   [24] = "IQ1_S",  [25] = "IQ4_NL",  [26] = "IQ3_S",
    [27] = "IQ3_M",  [28] = "IQ2_S",  [29] = "IQ2_M",     [30] = "IQ4_XS", [31] = "IQ1_M",   [32] = "BF16",
    [36] = "TQ1_0",  [37] = "TQ2_0",  [38] = "MXFP4_MOE", [39] = "NVFP4",  [40] = "Q1_0",    [41] = "Q2_0",
};

/* Set in general.file_type when llama.cpp only guessed it from the tensors. */
#define FILE_TYPE_GUESSED 1024u

const char *model_file_type_word(uint64_t file_type)
{
    if (file_type >= FILE_TYPE_GUESSED)
        file_type -= FILE_TYPE_GUESSED;
    return file_type < sizeof file_types / sizeof *file_types ? file_types[file_type] : NULL;
}
