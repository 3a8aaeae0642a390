/* The oracle's tool:
 *
 *     oracle files DIR [SHAPE…]    writes the sparse files; prints "SHAPE HASH" a line
 *     oracle cases                 id, key, shape, architecture, environment and arguments of
 * llama-fit-params, by tabs oracle isa                   this machine's vector units, as goldens.tsv has them
 * oracle compare GOLDENS DIR [--arch A] [--shape S] [--only TEXT] [--worst N] [--json FILE] [--cases] the
 * planner against recorded answers; exit 1 when a goal is missed
 *     oracle graph DIR ID          the planner's graph of one case, as record.py --graph writes the real one
 */
#include "graph_print.h"
#include "report.h"

#include "base/mem.h"
#include "plan/facts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int fail(const struct err *err)
{
    fprintf(stderr, "oracle: %s\n", err->message);
    return 2;
}

static int cmd_files(int argc, char **argv)
{
    struct err err;
    if (argc < 1 || (mkdir(argv[0], 0755) && errno != EEXIST))
        return fprintf(stderr, "oracle: files needs a folder that can be written\n"), 2;
    for (size_t i = 0; i < n_shapes; i++) {
        bool wanted = argc == 1;
        for (int a = 1; a < argc; a++)
            wanted |= !strcmp(argv[a], shapes[i].name);
        auto_free char *path = NULL;
        uint64_t hash;
        if (wanted && shape_file(&shapes[i], argv[0], &path, &hash, &err))
            return fail(&err);
        if (wanted)
            printf("%s %016" PRIx64 "\n", shapes[i].name, hash);
    }
    return 0;
}

static int cmd_cases(void)
{
    size_t n;
    auto_free struct oracle_case *all = cases_make(&n);
    for (size_t i = 0; i < n; i++) {
        struct buf env = {0}, args = {0};
        case_oracle_env(&all[i], &env);
        case_oracle_args(&all[i], &args);
        printf("%s\t%08" PRIx32 "\t%s\t%s\t%.*s\t%.*s\n", all[i].id, all[i].key, all[i].shape->name,
               all[i].shape->arch, STR_ARG(buf_str(&env)), STR_ARG(buf_str(&args)));
        buf_release(&env);
        buf_release(&args);
    }
    return 0;
}

static bool option(char **argv, int argc, int *i, const char *name, const char **ret)
{
    if (strcmp(argv[*i], name) || *i + 1 >= argc)
        return false;
    *ret = argv[++*i];
    return true;
}

static int cmd_compare(int argc, char **argv)
{
    struct report_options o = {0};
    const char *worst = "10";
    if (argc < 2)
        return fprintf(stderr, "oracle: compare needs the answers and a folder for the files\n"), 2;
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "--cases"))
            o.each = true;
        else if (!option(argv, argc, &i, "--arch", &o.arch) && !option(argv, argc, &i, "--shape", &o.shape) &&
                 !option(argv, argc, &i, "--only", &o.only) && !option(argv, argc, &i, "--worst", &worst) &&
                 !option(argv, argc, &i, "--json", &o.json))
            return fprintf(stderr, "oracle: unknown option %s\n", argv[i]), 2;
    }
    o.worst = (unsigned)strtoul(worst, NULL, 10);
    struct err err;
    bool met = false;
    if (report(argv[0], argv[1], &o, &met, &err))
        return fail(&err);
    return met ? 0 : 1;
}

static int cmd_graph(const char *dir, const char *id)
{
    size_t n;
    auto_free struct oracle_case *all = cases_make(&n);
    for (size_t i = 0; i < n; i++) {
        auto_free char *path = NULL;
        struct model *m = NULL;
        struct err err;
        if (strcmp(all[i].id, id))
            continue;
        if (shape_file(all[i].shape, dir, &path, NULL, &err) || model_open(path, &m, &err))
            return fail(&err);
        enum rc rc = graph_print(&all[i], m, stdout, &err);
        model_unref(m);
        return rc ? fail(&err) : 0;
    }
    return fprintf(stderr, "oracle: no case named %s\n", id), 2;
}

int main(int argc, char **argv)
{
    if (argc >= 2 && !strcmp(argv[1], "files"))
        return cmd_files(argc - 2, argv + 2);
    if (argc == 2 && !strcmp(argv[1], "cases"))
        return cmd_cases();
    if (argc == 2 && !strcmp(argv[1], "isa"))
        return printf("%u\n", plan_isa_here()), 0;
    if (argc >= 2 && !strcmp(argv[1], "compare"))
        return cmd_compare(argc - 2, argv + 2);
    if (argc == 4 && !strcmp(argv[1], "graph"))
        return cmd_graph(argv[2], argv[3]);
    fprintf(stderr,
            "usage: oracle files|cases|isa|compare|graph … (see the head of tests/oracle/oracle.c)\n");
    return 2;
}
