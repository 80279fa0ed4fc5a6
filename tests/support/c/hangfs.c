/* Runs a program beside a file system that hangs: hangfs [--killable] FOLDER PROGRAM [ARG]...
 *
 * FOLDER/file can be looked at and opened; whoever reads it waits for an answer that does not come. As long as it does
 * not, SIGKILL does not end the reader either, as with a disk that is gone or a driver call that is stuck; with
 * --killable it does, as with a network file system. FOLDER.read is made when the first reader waits.
 *
 * SIGUSR1 ends the hang: every read fails then. So does the end of the program, whose exit status is ours (128+N for
 * signal N). The mount is seen by the program and what it starts alone. fuse(4), without a library.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILE_NODE = 2, FILE_SIZE = 4096 };

static int killable;
static const char *folder;

static void fail(const char *what) {
  perror(what);
  exit(99);
}

static void put(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) fail(path);
  close(fd);
}

/* A mount namespace of our own, as root or in a user namespace in which we are. */
static void set_apart(void) {
  if (unshare(CLONE_NEWNS) == 0) return;
  char map[64];
  int uid = geteuid(), gid = getegid();
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) fail("unshare");
  put("/proc/self/setgroups", "deny");
  snprintf(map, sizeof map, "0 %d 1", uid);
  put("/proc/self/uid_map", map);
  snprintf(map, sizeof map, "0 %d 1", gid);
  put("/proc/self/gid_map", map);
}

static struct fuse_attr attributes(unsigned long long node) {
  struct fuse_attr attr = {.ino = node, .nlink = 1, .blksize = 4096};
  attr.mode = node == FILE_NODE ? S_IFREG | 0755 : S_IFDIR | 0755;
  attr.size = node == FILE_NODE ? FILE_SIZE : 0;
  return attr;
}

static void answer(int fuse, const struct fuse_in_header *to, int error, const void *body, size_t size) {
  struct fuse_out_header head = {.len = sizeof head + size, .error = -error, .unique = to->unique};
  struct iovec parts[] = {{&head, sizeof head}, {(void *)body, size}};
  /* ENOENT: the request was interrupted meanwhile. */
  if (writev(fuse, parts, size ? 2 : 1) < 0 && errno != ENOENT) fail("answer");
}

static void serve(int fuse) {
  static char request[FUSE_MIN_READ_BUFFER + (1 << 16)];
  ssize_t got = read(fuse, request, sizeof request);
  if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) return;
  if (got < (ssize_t)sizeof(struct fuse_in_header)) fail("read");
  struct fuse_in_header head;
  memcpy(&head, request, sizeof head);
  const char *body = request + sizeof head;
  switch (head.opcode) {
    case FUSE_INIT: {
      struct fuse_init_out init = {.major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096};
      init.max_readahead = 4096;
      init.flags = FUSE_ASYNC_READ;
      answer(fuse, &head, 0, &init, sizeof init);
      break;
    }
    case FUSE_LOOKUP: {
      struct fuse_entry_out entry = {.nodeid = FILE_NODE, .attr = attributes(FILE_NODE)};
      int known = !strcmp(body, "file");
      answer(fuse, &head, known ? 0 : ENOENT, &entry, known ? sizeof entry : 0);
      break;
    }
    case FUSE_GETATTR: {
      struct fuse_attr_out attr = {.attr = attributes(head.nodeid)};
      answer(fuse, &head, 0, &attr, sizeof attr);
      break;
    }
    case FUSE_OPEN:
    case FUSE_OPENDIR: {
      /* What goes through the page cache waits for a page, and that wait can be killed. */
      struct fuse_open_out opened = {.open_flags = killable ? 0 : FOPEN_DIRECT_IO};
      answer(fuse, &head, 0, &opened, sizeof opened);
      break;
    }
    case FUSE_READ: {
      char mark[4096];
      snprintf(mark, sizeof mark, "%s.read", folder);
      put(mark, "");
      break;
    }
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
      break;
    case FUSE_READDIR:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_FLUSH:
      answer(fuse, &head, 0, NULL, 0);
      break;
    default:
      answer(fuse, &head, ENOSYS, NULL, 0);
  }
}

static volatile sig_atomic_t released;

static void release(int number) {
  (void)number;
  released = 1;
}

static void child_ended(int number) { (void)number; }

int main(int argc, char **argv) {
  int at = 1;
  if (at < argc && !strcmp(argv[at], "--killable")) killable = at++;
  if (argc - at < 2) return 98;
  folder = argv[at++];
  int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fuse < 0) fail("/dev/fuse");
  set_apart();
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) fail("mount --make-rprivate");
  char options[128];
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%d,group_id=%d", fuse, geteuid(), getegid());
  if (mount("hangfs", folder, "fuse", MS_NOSUID | MS_NODEV, options) < 0) fail("mount");

  /* Both interrupt the poll below and come at no other time. */
  sigset_t ours, before;
  sigemptyset(&ours);
  sigaddset(&ours, SIGUSR1);
  sigaddset(&ours, SIGCHLD);
  sigprocmask(SIG_BLOCK, &ours, &before);
  struct sigaction action = {.sa_handler = release};
  sigaction(SIGUSR1, &action, NULL);
  action.sa_handler = child_ended;
  sigaction(SIGCHLD, &action, NULL);

  pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    sigprocmask(SIG_SETMASK, &before, NULL);
    execvp(argv[at], argv + at);
    fail(argv[at]);
  }
  for (;;) {
    int status;
    if (waitpid(child, &status, WNOHANG) == child) {
      return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
    if (released && fuse >= 0) {
      /* The kernel ends every request that has no answer. */
      umount2(folder, MNT_FORCE | MNT_DETACH);
      close(fuse);
      fuse = -1;
    }
    struct pollfd ready = {.fd = fuse, .events = POLLIN};
    if (ppoll(&ready, 1, NULL, &before) > 0 && ready.revents & POLLIN) serve(fuse);
  }
}
