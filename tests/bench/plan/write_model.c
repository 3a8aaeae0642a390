/* Writes sparse models into a folder and prints their paths, one a line: first that of the benchmark's
 * question, for the planner and for llama-fit-params alike, then one of each family of architectures.
 *
 *     write_model DIR */
#include "builders.h"
#include "shape.h"

#include "base/mem.h"

#include <stdio.h>

static int write(const struct shape *s, const char *dir)
{
    auto_free char *path = NULL;
    struct err err;
    if (shape_file(s, dir, &path, NULL, &err) != RC_OK)
        return fprintf(stderr, "write_model: %s\n", err.message), 1;
    puts(path);
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const families[] = {
        "gemma-3-27b",        "deepseek-v3",    "gpt-oss-20b",       "gemma-3n-e4b", "mamba-2.8b",
        "codestral-mamba-7b", "jamba-1.5-mini", "falcon-h1-7b",      "lfm2-8b-a1b",  "granite-4.0-h-tiny",
        "rwkv-7-2.9b",        "nemotron-h-8b",  "qwen3-next-80b-a3b"};
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
    if (argc != 2)
        return fprintf(stderr, "usage: write_model DIR\n"), 2;
    int failed = write(&moe_80, argv[1]);
    for (size_t i = 0; i < TABLE_COUNT(families) && !failed; i++) {
        const struct shape *s = shape_find(families[i]);
        failed = s ? write(s, argv[1]) : (fprintf(stderr, "write_model: no shape %s\n", families[i]), 1);
    }
    return failed;
}
