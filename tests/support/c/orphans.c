/* Makes orphans: `orphans N`. Each of N grandchildren has lost its parent when it exits. Then says `done` and waits for
 * the end of standard input. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
  long count = argc > 1 ? atol(argv[1]) : 0;
  for (long i = 0; i < count; i++) {
    pid_t child = fork();
    if (child < 0) return 5;
    if (child == 0) {
      pid_t parent = getpid();
      pid_t grandchild = fork();
      if (grandchild < 0) _exit(5);
      while (grandchild == 0 && getppid() == parent) usleep(100);
      _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) return 5;
  }
  if (write(1, "done\n", 5) < 0) return 6;
  char byte;
  while (read(0, &byte, 1) > 0) {
  }
  return 0;
}
