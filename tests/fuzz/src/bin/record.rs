#![cfg_attr(feature = "libfuzzer", no_main)]
cuda_entrypoint_fuzz::target!(python::record);
