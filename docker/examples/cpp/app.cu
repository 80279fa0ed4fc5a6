// A service that computes on the GPU by a library of its own. With --self-test it compares one result and ends.
#include <cstdio>
#include <cstring>
#include <cuda_runtime.h>

cudaError_t scale(float *values, int count, float factor);

int main(int count, char **words) {
  float host[256], *device;
  for (int i = 0; i < 256; i++) host[i] = i;
  cudaError_t error = cudaMalloc(&device, sizeof host);
  if (!error) error = cudaMemcpy(device, host, sizeof host, cudaMemcpyHostToDevice);
  if (!error) error = scale(device, 256, 2);
  if (!error) error = cudaMemcpy(host, device, sizeof host, cudaMemcpyDeviceToHost);
  if (error || host[255] != 510) {
    fprintf(stderr, "my-app: %s, the last value is %g\n", cudaGetErrorString(error), host[255]);
    return 1;
  }
  if (count > 1 && !strcmp(words[1], "--self-test")) return 0;
  puts("my-app: ready");
  return 0;
}
