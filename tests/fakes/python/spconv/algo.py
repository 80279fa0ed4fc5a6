"""The places through which spconv 2.3.8 calls NVRTC: static methods, and methods of its tuners."""


class SimpleGemm:
    @staticmethod
    def _compile_nvrtc_module(desp):
        return "gemm", desp


class SimpleConv:
    @staticmethod
    def _compile_nvrtc_module(desp):
        return "conv", desp


class ConvTunerSimple:
    def _compile_nvrtc_module(self, desp):
        return "tuner", desp


CONV = SimpleConv()
