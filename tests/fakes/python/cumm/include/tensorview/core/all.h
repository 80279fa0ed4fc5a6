// The smoke looks for this file; spconv's kernels include it.
