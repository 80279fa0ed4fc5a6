/* Starts a program as a strange parent would, with descriptors 0, 1 and 2 alone unless an option gives it more:
 * launcher [OPTION]... -- PROGRAM [ARG]...
 *
 *   --block            every signal blocked
 *   --ignore           every signal ignored
 *   --ignore-child     SIGCHLD alone
 *   --subreaper        with the flag set
 *   --env FILE         with this environment: strings that end in a NUL byte each, in this order
 *   --open N FILE      with FILE open for reading as descriptor N
 *   --close N          with descriptor N closed
 *   --child STATUS     with a child that exits with STATUS, 300 ms from now
 *   --zombie STATUS    with one that has exited already
 *   --files N          with room for N descriptors only
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
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

struct disposition {
  void *handler;
  unsigned long flags;
  void *restorer;
  unsigned long mask;
};

static void fail(const char *what) {
  perror(what);
  exit(99);
}

static void ignore(int number) {
  struct disposition ignored = {(void *)1, 0, NULL, 0};
  /* SIGKILL and SIGSTOP refuse. */
  syscall(SYS_rt_sigaction, number, &ignored, NULL, sizeof ignored.mask);
}

static char **environment(const char *path) {
  struct stat facts;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &facts) < 0) fail(path);
  size_t size = (size_t)facts.st_size, count = 0;
  char *text = malloc(size + 1);
  char **all = calloc(size + 1, sizeof *all);
  if (!text || !all || read(fd, text, size) != facts.st_size) fail(path);
  for (char *at = text; at < text + size; at += strlen(at) + 1) all[count++] = at;
  return all;
}

int main(int argc, char **argv) {
  char **env = environ;
  (void)argc;
  /* What the test runner left open is no matter of the test. */
  syscall(SYS_close_range, 3u, ~0u, 0u);
  for (argv++; *argv && strcmp(*argv, "--"); argv++) {
    const char *option = *argv;
    if (!strcmp(option, "--block")) {
      unsigned long all = ~0ul;
      syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof all);
    } else if (!strcmp(option, "--ignore")) {
      for (int number = 1; number <= 64; number++) ignore(number);
    } else if (!strcmp(option, "--ignore-child")) {
      ignore(SIGCHLD);
    } else if (!strcmp(option, "--subreaper")) {
      if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0) fail("prctl");
    } else if (!strcmp(option, "--env")) {
      env = environment(*++argv);
    } else if (!strcmp(option, "--open")) {
      int wanted = atoi(*++argv);
      int fd = open(*++argv, O_RDONLY);
      if (fd < 0) fail(*argv);
      if (fd != wanted && (dup2(fd, wanted) < 0 || close(fd) < 0)) fail("dup2");
    } else if (!strcmp(option, "--close")) {
      close(atoi(*++argv));
    } else if (!strcmp(option, "--child") || !strcmp(option, "--zombie")) {
      int zombie = option[2] == 'z', status = atoi(*++argv);
      pid_t child = fork();
      if (child < 0) fail("fork");
      if (child == 0) {
        if (!zombie) usleep(300000);
        _exit(status);
      }
      siginfo_t info;
      if (zombie && waitid(P_PID, child, &info, WEXITED | WNOWAIT) < 0) fail("waitid");
    } else if (!strcmp(option, "--files")) {
      rlim_t few_files = atoi(*++argv);
      struct rlimit few = {few_files, few_files};
      if (setrlimit(RLIMIT_NOFILE, &few) < 0) fail("setrlimit");
    } else {
      fprintf(stderr, "launcher: what is %s?\n", option);
      return 98;
    }
  }
  if (!*argv || !argv[1]) return 98;
  execve(argv[1], argv + 1, env);
  fail(argv[1]);
}
