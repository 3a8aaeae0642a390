/* Fuzz target of what a worker of llama.cpp's RPC backend answers: the input is all that it ever sends. */
#include "hw/hw_priv.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *why, bool greeted, const struct hw_rpc_told *told)
{
    if (why) {
        if (!why[0] || told->n_devices != 77)
            abort(); /* a failure says why, and leaves what was known */
        return;
    }
    if (!greeted || !told->n_devices || told->n_devices > HW_MAX_DEVICES)
        abort();
    for (unsigned d = 0; d < told->n_devices; d++)
        if (told->free_bytes[d] > told->total_bytes[d])
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int ends[2];
    bool greeted = false;
    struct hw_rpc_told told = {.n_devices = 77};
    if (size > 4096) /* fits any socket's buffer */
        return 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0 ||
        fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0)
        abort();
    if ((size && write(ends[1], data, size) != (ssize_t)size) || shutdown(ends[1], SHUT_WR) != 0)
        abort();
    const char *why = hw_rpc_read(ends[0], &greeted, &told);
    check(why, greeted, &told);
    close(ends[0]);
    close(ends[1]);
    return 0;
}
