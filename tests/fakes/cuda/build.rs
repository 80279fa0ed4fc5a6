fn main() {
    // ldconfig, and whoever injects driver libraries into a container, go by the SONAME.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    println!("cargo::rerun-if-changed=build.rs");
}
