/* Writes the sparse model of the benchmark's question into the folder given as argument, for the planner and
 * for llama-fit-params alike, and prints its path. */
#include "builders.h"
#include "shape.h"

#include "base/mem.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    static const struct shape moe_80 = {.name = "experts-80-layers",
                                        .arch = "qwen3moe",
                                        .build = shape_plain,
                                        .mix = MIX_Q4_K_M,
                                        .tok = TOK_BPE,
                                        .layers = 80,
                                        .embd = 4096,
                                        .heads = 64,
                                        .kv = 4,
                                        .dim = 128,
                                        .ff = 12288,
                                        .vocab = 151936,
                                        .ctx = 40960,
                                        .experts = 128,
                                        .used = 8,
                                        .ff_exp = 1536,
                                        .has = HAS_QK_NORM};
    auto_free char *path = NULL;
    struct err err;
    if (argc != 2)
        return fprintf(stderr, "usage: write_model DIR\n"), 2;
    if (shape_file(&moe_80, argv[1], &path, NULL, &err) != RC_OK)
        return fprintf(stderr, "write_model: %s\n", err.message), 1;
    puts(path);
    return 0;
}
