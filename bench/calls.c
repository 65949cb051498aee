// Makes one system call again and again, for what is measured is who decides it: calls openat|connect COUNT.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const int connects = strcmp(argv[1], "connect") == 0;
  // A datagram socket: connect(2) only notes the address, and nobody needs to be there.
  const int socket_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  for (long left = atol(argv[2]); left > 0; left--) {
    if (connects) {
      if (connect(socket_, (struct sockaddr*)&address, sizeof(address)) < 0) return 1;
    } else {
      const int fd = open("/etc/hostname", O_RDONLY | O_CLOEXEC);
      if (fd < 0) return 1;
      close(fd);
    }
  }
  return 0;
}
