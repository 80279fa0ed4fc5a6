//! Lists of architectures in the syntax of `TORCH_CUDA_ARCH_LIST`.
