"""A service as the measurements need one: says when it is ready, then that its workers can use the GPU."""

import multiprocessing
import os
import sys
import time


def work(queue):
    import torch

    queue.put(float(torch.ones(4, device="cuda").sum()))


def main():
    import torch
    import spconv.pytorch as spconv

    net = spconv.SubMConv3d(4, 8, 3).cuda()
    indices = torch.zeros((1, 4), dtype=torch.int32, device="cuda")
    features = torch.ones((1, 4), device="cuda")
    net(spconv.SparseConvTensor(features, indices, [4, 4, 4], 1))
    torch.cuda.synchronize()
    print("ready", round(time.time() - float(os.environ["BEGAN"]), 3), flush=True)
    if "--workers" in sys.argv:
        for method in ("spawn", "forkserver"):
            context = multiprocessing.get_context(method)
            queue = context.Queue()
            worker = context.Process(target=work, args=(queue,))
            worker.start()
            assert queue.get(timeout=60) == 4.0
            worker.join()
        print("workers OK", os.getpid(), sorted(os.listdir("/proc/self/fd"))[:4], flush=True)


if __name__ == "__main__":
    main()
