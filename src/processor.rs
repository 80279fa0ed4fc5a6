//! The processor that this build is for, by each name that files, packages and other programs have for it.

/// One processor's names.
#[derive(Debug)]
pub struct Processor {
    /// `e_machine` of its ELF files
    pub elf: u16,
    /// as people write it
    pub name: &'static str,
    /// as `uname -m`, Python's `platform.machine()` and wheels' tags write it
    pub machine: &'static str,
    /// its Linux, as images are labelled
    pub platform: &'static str,
    /// the folder of its libraries on Debian, and the end of the names of CPython's extensions before `.so`
    pub triplet: &'static str,
    /// glibc's loader, where the ABI has it
    pub loader: &'static str,
    /// the flags of its entries in ld.so.cache: glibc, `sysdeps/generic/ldconfig.h`
    pub cache_flags: u32,
    /// folders for better processors that the loader looks into below each one: of glibc 2.33 and later, and of those
    /// before 2.37 (ld.so(8), "Hardware capabilities")
    pub better: &'static [&'static str],
    /// what `$LIB` of a search path can be: Debian's, others', and of old
    pub lib: [&'static str; 3],
    /// the loader's folders behind ld.so.cache, of all distributions
    pub default: [&'static str; 6],
    /// where a CUDA toolkit has the libraries of this processor
    pub toolkit: &'static [&'static str],
    /// folders in which container runtimes and WSL2 leave the driver's libraries, whether or not a loader searches them
    pub driver: &'static [&'static str],
}

/// This build's.
#[cfg(target_arch = "x86_64")]
pub const OWN: Processor = Processor {
    elf: 62, // EM_X86_64
    name: "x86-64",
    machine: "x86_64",
    platform: "linux/amd64",
    triplet: "x86_64-linux-gnu",
    loader: "/lib64/ld-linux-x86-64.so.2",
    // FLAG_X8664_LIB64 | FLAG_ELF_LIBC6
    cache_flags: 0x0303,
    better: &["glibc-hwcaps", "tls", "haswell", "avx512_1", "x86_64"],
    lib: ["lib/x86_64-linux-gnu", "lib64", "lib"],
    default: [
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/lib64",
        "/usr/lib64",
        "/lib",
        "/usr/lib",
    ],
    toolkit: &["lib64", "targets/x86_64-linux/lib"],
    driver: &[
        "/usr/local/nvidia/lib64", // GKE and older device plugins
        "/usr/lib/wsl/lib",        // WSL2
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib64",
        "/run/nvidia/driver/usr/lib/x86_64-linux-gnu", // GPU operator's driver container
        "/opt/nvidia/lib64",
    ],
};

/// This build's.
#[cfg(target_arch = "aarch64")]
pub const OWN: Processor = Processor {
    elf: 183, // EM_AARCH64
    name: "aarch64",
    machine: "aarch64",
    platform: "linux/arm64",
    triplet: "aarch64-linux-gnu",
    loader: "/lib/ld-linux-aarch64.so.1",
    // FLAG_AARCH64_LIB64 | FLAG_ELF_LIBC6
    cache_flags: 0x0a03,
    better: &["glibc-hwcaps", "tls", "atomics", "aarch64"],
    lib: ["lib/aarch64-linux-gnu", "lib64", "lib"],
    default: [
        "/lib/aarch64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/lib64",
        "/usr/lib64",
        "/lib",
        "/usr/lib",
    ],
    // Servers (SBSA), and Jetson until CUDA 13 made them one.
    toolkit: &["lib64", "targets/sbsa-linux/lib", "targets/aarch64-linux/lib"],
    driver: &[
        "/usr/local/nvidia/lib64", // GKE and older device plugins
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu/nvidia", // Jetson Linux 36
        "/usr/lib/aarch64-linux-gnu/tegra",  // Jetson Linux before that
        "/usr/lib64",
        "/run/nvidia/driver/usr/lib/aarch64-linux-gnu", // GPU operator's driver container
        "/opt/nvidia/lib64",
    ],
};
