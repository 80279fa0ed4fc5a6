// The kernels of the service.
#include <cuda_runtime.h>

__global__ void multiply(float *values, int count, float factor) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) values[i] *= factor;
}

cudaError_t scale(float *values, int count, float factor) {
  multiply<<<(count + 127) / 128, 128>>>(values, count, factor);
  return cudaGetLastError();
}
