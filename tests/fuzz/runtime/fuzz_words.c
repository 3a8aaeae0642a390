/* Fuzz target of what a llama-server writes: what it says of itself when it is probed, the lines of its log,
 * and the tail that tells why it died. The first byte is its wait status. */
#include "base/mem.h"
#include "runtime/llamacpp_priv.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void probe(struct str text)
{
    struct runtime_caps caps = {0};
    caps.flags = llamacpp_flags(text);
    llamacpp_version(text, &caps);
    llamacpp_devices(text, &caps);
    if (caps.n_devices > TABLE_COUNT(caps.devices) || !memchr(caps.version, '\0', sizeof caps.version))
        abort();
    for (size_t i = 0; i < caps.n_devices; i++)
        if (!caps.devices[i].name[0])
            abort();
}

static void log_lines(struct str text)
{
    struct runtime_measured m = {0};
    while (text.n) {
        struct str line = str_cut(&text, '\n');
        double progress = llamacpp_log_line(line, &m);
        if (!(progress >= -1 && progress <= 1) || m.n_parts > TABLE_COUNT(m.parts))
            abort();
    }
    for (size_t i = 0; i < m.n_parts; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(m.parts[i].name, m.parts[k].name) == 0)
                abort(); /* a device is counted once */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err cause = {0};
    if (!size)
        return 0;
    struct str text = {(const char *)data + 1, size - 1};
    probe(text);
    log_lines(text);
    enum runtime_failure f = llamacpp_classify(data[0] << 8, text, &cause);
    if (!runtime_failure_word(f)[0] || !cause.message[0])
        abort();
    (void)llamacpp_classify(data[0] & 0x7f, text, &cause);
    return 0;
}
