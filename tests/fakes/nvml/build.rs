fn main() {
    // ldconfig, and whoever injects driver libraries into a container, go by the SONAME.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libnvidia-ml.so.1");
    println!("cargo::rerun-if-changed=build.rs");
}
