/* A service that takes every signal and tells each: `ready`, then `got N` a signal, in the order in which they come.
 * SIGTERM is the last: a moment later, in which what was sent twice would still come, it exits with 7.
 *
 * counter [pair]: with `pair` it has a child of its own group that tells `child got N`; both end of SIGTERM, the child
 * too where only its parent got it. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const unsigned long all = ~0ul;

/* The kernel's own call: the C library hides two signals. */
static int take(const struct timespec *patience) {
  siginfo_t info;
  return syscall(SYS_rt_sigtimedwait, &all, &info, patience, sizeof all);
}

static void tell(const char *who, int number) {
  char line[64];
  int length = snprintf(line, sizeof line, "%sgot %d\n", who, number);
  if (write(1, line, length) < 0) _exit(6);
}

static void count(const char *who) {
  int number, over = 0;
  const struct timespec moment = {0, 100000000};
  for (;;) {
    number = take(over ? &moment : NULL);
    if (number > 0 && number != SIGCHLD) tell(who, number);
    if (number < 0 && over) return;
    if (number == SIGTERM) over = 1;
  }
}

int main(int argc, char **argv) {
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof all);
  int ready[2];
  if (pipe(ready) < 0) return 5;
  pid_t child = -1;
  if (argc > 1 && !strcmp(argv[1], "pair") && (child = fork()) == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (write(ready[1], "", 1) < 0) return 5;
    count("child ");
    return 0;
  }
  char byte;
  if (child > 0 && read(ready[0], &byte, 1) != 1) return 5;
  if (write(1, "ready\n", 6) < 0) return 6;
  count("");
  return 7;
}
