# the hand-off of cuda-entrypoint
