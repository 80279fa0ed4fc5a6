/* A server that says how it was started, and what it is. Dynamically linked, as servers with CUDA code are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int count, char **words) {
  const char *slash = strrchr(words[0], '/');
  const char *variable = getenv("VARIABLE");
  fputs(slash ? slash + 1 : words[0], stdout);
  for (int i = 1; i < count; i++) printf(" %s", words[i]);
  printf(" VARIABLE=%s\n", variable ? variable : "");
  FILE *status = fopen("/proc/self/status", "r");
  if (!status) return 1;
  for (int byte = getc(status); byte != EOF; byte = getc(status)) putchar(byte);
  return fclose(status);
}
