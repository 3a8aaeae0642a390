/* A free port for the next server of ours: see pool_priv.h. */
#include "pool/pool_priv.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum rc port_choose(const char *host, uint16_t *ret_port, struct err *err)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(err, RC_IO, "cannot open a socket to find a free port");
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &n) < 0) {
        enum rc rc = err_sys(err, RC_IO, "cannot find a free port on %s", host);
        close(fd);
        return rc;
    }
    close(fd);
    *ret_port = ntohs(a.sin_port);
    return RC_OK;
}
