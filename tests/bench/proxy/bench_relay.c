/* The floor of the proxy benchmark: copies bytes between a client's socket and one to the server, and looks
 * at none of them. One thread, level-triggered epoll, one read and one write an event. Prints its port.
 * Usage: bench_relay BACKEND_PORT */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static int peer[65536];

static int open_socket(void)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void watch(int ep, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, to = sa;
    socklen_t len = sizeof sa;
    to.sin_port = htons((uint16_t)atoi(argv[1]));
    int l = open_socket(), ep = epoll_create1(0);
    if (bind(l, (struct sockaddr *)&sa, sizeof sa) || listen(l, 4096) ||
        getsockname(l, (struct sockaddr *)&sa, &len))
        return 1;
    watch(ep, l);
    printf("%u\n", ntohs(sa.sin_port));
    fflush(stdout);
    static char block[65536];
    struct epoll_event evs[256];
    for (;;) {
        int n = epoll_wait(ep, evs, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = evs[i].data.fd;
            if (fd == l) {
                int client = accept(l, NULL, NULL), up = open_socket();
                if (client < 0 || up < 0 || client > 65535 || up > 65535 ||
                    connect(up, (struct sockaddr *)&to, sizeof to))
                    return 1;
                peer[client] = up;
                peer[up] = client;
                watch(ep, client);
                watch(ep, up);
                continue;
            }
            if (!peer[fd])
                continue;
            ssize_t r = read(fd, block, sizeof block);
            for (ssize_t at = 0, w = 0; r > 0 && at < r; at += w)
                if ((w = send(peer[fd], block + at, (size_t)(r - at), MSG_NOSIGNAL)) < 0)
                    r = -1;
            if (r <= 0) {
                int other = peer[fd];
                peer[fd] = peer[other] = 0;
                close(fd);
                close(other);
            }
        }
    }
}
