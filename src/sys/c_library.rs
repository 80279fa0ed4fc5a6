//! Keeps parts of glibc out of the static program that nothing in it uses: 220 KB.
//!
//! A linker takes a member of libc.a for each name that is still undefined. The names below are asked for by functions
//! that every program has, and bring whole subsystems with them. Defined here, and weak, so that a C library which brings
//! them all the same has the last word, they keep those out:
//!
//! - `__libc_resp`, to which `pthread_create` writes the address of the thread's resolver state: the resolver, with its
//!   configuration files and sockets.
//! - `__assert_fail`: message catalogues and character sets, to translate what a failed assertion of glibc itself says. The
//!   program aborts without it.
//! - `__dcgettext`, with which glibc translates the text of an error number: catalogues and plural forms. The text stays
//!   English, as it was: the program sets no locale.
//! - `__vfprintf_internal`: the formatting of `printf`, with floating point numbers and wide characters. What is left and
//!   calls it are the text of an error number without a name, which becomes empty (`(os error 524)`), and messages of
//!   functions that are never called, such as `malloc_info`. It returns -1, an output error.

/// What the two processors write differently: a jump to `abort`, and functions that return -1 and their second argument.
#[cfg(all(target_arch = "x86_64", target_feature = "crt-static", target_env = "gnu"))]
macro_rules! instructions {
    (abort) => {
        "jmp abort"
    };
    (minus_one) => {
        "mov eax, -1\nret"
    };
    (second) => {
        "mov rax, rsi\nret"
    };
}
#[cfg(all(target_arch = "aarch64", target_feature = "crt-static", target_env = "gnu"))]
macro_rules! instructions {
    (abort) => {
        "b abort"
    };
    (minus_one) => {
        "mov w0, #-1\nret"
    };
    (second) => {
        "mov x0, x1\nret"
    };
}
#[cfg(all(target_feature = "crt-static", target_env = "gnu", panic = "abort"))]
pub(super) use instructions;

#[cfg(all(target_feature = "crt-static", target_env = "gnu"))]
std::arch::global_asm!(
    ".pushsection .tbss.__libc_resp, \"awT\", @nobits",
    ".balign 8",
    ".weak __libc_resp",
    ".type __libc_resp, @tls_object",
    ".size __libc_resp, 8",
    "__libc_resp:",
    ".zero 8",
    ".popsection",
    ".pushsection .text.__assert_fail, \"ax\", @progbits",
    ".weak __assert_fail",
    ".type __assert_fail, @function",
    "__assert_fail:",
    instructions!(abort),
    ".size __assert_fail, . - __assert_fail",
    ".popsection",
    ".pushsection .text.__vfprintf_internal, \"ax\", @progbits",
    ".weak __vfprintf_internal",
    ".type __vfprintf_internal, @function",
    "__vfprintf_internal:",
    instructions!(minus_one),
    ".size __vfprintf_internal, . - __vfprintf_internal",
    ".popsection",
    ".pushsection .text.__dcgettext, \"ax\", @progbits",
    ".weak __dcgettext",
    ".type __dcgettext, @function",
    "__dcgettext:",
    instructions!(second),
    ".size __dcgettext, . - __dcgettext",
    ".popsection",
);
