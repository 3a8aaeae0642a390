/* Memory bandwidth of cards by name, for where the driver does not tell memory clock and bus width: drivers
 * before NVML 11.5 have no bus width, chips on system memory have no memory clock. The figures are the cards'
 * specifications as generally known. Where the driver does tell, 2 × maximum memory clock × bus width / 8 is
 * right for GDDR and HBM alike (two transfers a clock of the rate that the driver reports), and the table is
 * not asked. Layer hw; pure. */
#include "hw/hw_priv.h"

#include "base/mem.h"

#include <string.h>

/* The longest part that the name contains wins. */
static const struct {
    const char *part;
    double gbps;
} cards[] = {
    {"GB10", 273},
    {"Thor", 273},
    {"Orin", 204.8},
    {"GTX 1060", 192},
    {"GTX 1070", 256},
    {"GTX 1080", 320},
    {"GTX 1080 Ti", 484},
    {"GTX 1660", 192},
    {"GTX 1660 Ti", 288},
    {"GTX 1660 SUPER", 336},
    {"RTX 2060", 336},
    {"RTX 2070", 448},
    {"RTX 2080", 448},
    {"RTX 2080 SUPER", 496},
    {"RTX 2080 Ti", 616},
    {"TITAN RTX", 672},
    {"TITAN V", 653},
    {"RTX 3050", 224},
    {"RTX 3060", 360},
    {"RTX 3060 Ti", 448},
    {"RTX 3070", 448},
    {"RTX 3070 Ti", 608},
    {"RTX 3080", 760},
    {"RTX 3080 Ti", 912},
    {"RTX 3090", 936},
    {"RTX 3090 Ti", 1008},
    {"RTX 4060", 272},
    {"RTX 4060 Ti", 288},
    {"RTX 4070", 504},
    {"RTX 4070 Ti", 504},
    {"RTX 4070 Ti SUPER", 672},
    {"RTX 4080", 717},
    {"RTX 4080 SUPER", 736},
    {"RTX 4090", 1008},
    {"RTX 5060", 448},
    {"RTX 5070", 672},
    {"RTX 5070 Ti", 896},
    {"RTX 5080", 960},
    {"RTX 5090", 1792},
    {"RTX A2000", 288},
    {"RTX A4000", 448},
    {"RTX A5000", 768},
    {"RTX A6000", 768},
    {"RTX 6000 Ada", 960},
    {"Tesla K80", 240},
    {"Tesla M40", 288},
    {"Tesla P4", 192},
    {"Tesla P40", 347},
    {"Tesla P100", 732},
    {"Tesla T4", 320},
    {"Tesla V100", 900},
    {"A2", 200},
    {"A10", 600},
    {"A16", 200},
    {"A30", 933},
    {"A40", 696},
    {"A100", 1555},
    {"A100-SXM4-80GB", 2039},
    {"A100 80GB PCIe", 1935},
    {"L4", 300},
    {"L40", 864},
    {"L40S", 864},
    {"H100 PCIe", 2039},
    {"H100 80GB HBM3", 3352},
    {"H200", 4800},
    {"B200", 8000},
};

/* The part must be a whole word: "A10" is not in "A100", "RTX 3080" is in "RTX 3080 Laptop". */
static bool contains_word(const char *name, const char *part)
{
    size_t n = strlen(part);
    for (const char *p = strstr(name, part); p; p = strstr(p + 1, part))
        if ((p == name || p[-1] == ' ') && (p[n] == '\0' || p[n] == ' ' || p[n] == '-'))
            return true;
    return false;
}

double hw_bandwidth_of(const char *model)
{
    size_t best = 0;
    double gbps = 0;
    if (strstr(model, "Laptop") || strstr(model, "Max-Q")) /* other clocks and buses under the same names */
        return 0;
    for (size_t i = 0; i < TABLE_COUNT(cards); i++)
        if (strlen(cards[i].part) > best && contains_word(model, cards[i].part)) {
            best = strlen(cards[i].part);
            gbps = cards[i].gbps;
        }
    return gbps;
}
