/* A service that tells what it was born with, one fact a line; strings are in hexadecimal, since they may hold
 * anything. Everything is asked of the kernel itself: a C library hides two signals and a shell or an interpreter has
 * set some of it up for itself. Nothing is opened before the descriptors are listed.
 *
 * `wait` in PROBE: waits for every child first and tells how each ended.
 * `linger` in PROBE: says so at the end and waits for a signal. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct disposition { /* as the kernel has it on x86_64 */
  void *handler;
  unsigned long flags;
  void *restorer;
  unsigned long mask;
};

static void tell(const char *key, const char *value) {
  printf("%s ", key);
  for (; *value; value++) printf("%02x", (unsigned char)*value);
  putchar('\n');
}

int main(int argc, char **argv) {
  const char *wish = getenv("PROBE");
  for (int fd = 0; fd < 1024; fd++) {
    if (fcntl(fd, F_GETFD) < 0) continue;
    char name[64], target[4096] = "";
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, target, sizeof target - 1);
    target[length < 0 ? 0 : length] = 0;
    printf("fd %d %s\n", fd, target);
  }
  printf("pid %d\nppid %d\n", getpid(), getppid());
  for (int i = 0; i < argc; i++) tell("argv", argv[i]);
  for (char **variable = environ; *variable; variable++) tell("env", *variable);
  char here[4096];
  if (getcwd(here, sizeof here)) printf("cwd %s\n", here);
  unsigned long blocked = 0;
  syscall(SYS_rt_sigprocmask, 0, NULL, &blocked, sizeof blocked);
  printf("blocked %lx\n", blocked);
  for (int number = 1; number <= 64; number++) {
    struct disposition now = {0};
    syscall(SYS_rt_sigaction, number, NULL, &now, sizeof now.mask);
    if (now.handler) printf("%s %d\n", now.handler == (void *)1 ? "ignored" : "caught", number);
  }
  int subreaper = -1;
  prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
  printf("subreaper %d\n", subreaper);
  int deathsig = -1;
  prctl(PR_GET_PDEATHSIG, &deathsig);
  printf("deathsig %d\n", deathsig);
  mode_t mask = umask(0);
  printf("umask %o\n", mask);
  struct rlimit limit;
  for (int resource = 0; resource < RLIM_NLIMITS; resource++)
    if (getrlimit(resource, &limit) == 0)
      printf("limit %d %lx %lx\n", resource, (unsigned long)limit.rlim_cur, (unsigned long)limit.rlim_max);
  printf("group %d\nsession %d\n", getpgrp(), getsid(0));
  siginfo_t info = {0};
  if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0) printf("child %d\n", info.si_pid);
  if (wish && !strcmp(wish, "wait")) {
    int status;
    pid_t child;
    while ((child = wait(&status)) > 0) printf("waited %d %d\n", child, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  }
  if (wish && !strcmp(wish, "linger")) {
    printf("lingering\n");
    fflush(stdout);
    for (;;) pause();
  }
  return 0;
}
