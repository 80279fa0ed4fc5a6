//! Keeps parts of glibc, and the unwinder with what it is for, out of the static program that nothing in it uses.
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
//! - `_Unwind_…`: libgcc's unwinder. A panic aborts, and the program carries neither tables for unwinding nor symbols, so that
//!   there is nothing to walk through or to print. The optimiser sees that [`_Unwind_Backtrace`] never calls back, and
//!   leaves out the standard library's readers of DWARF and its demangler too. `RUST_BACKTRACE` prints an empty backtrace.

#[cfg(all(target_arch = "x86_64", target_feature = "crt-static", target_env = "gnu"))]
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
    "jmp abort",
    ".size __assert_fail, . - __assert_fail",
    ".popsection",
    ".pushsection .text.__vfprintf_internal, \"ax\", @progbits",
    ".weak __vfprintf_internal",
    ".type __vfprintf_internal, @function",
    "__vfprintf_internal:",
    "mov eax, -1",
    "ret",
    ".size __vfprintf_internal, . - __vfprintf_internal",
    ".popsection",
    ".pushsection .text.__dcgettext, \"ax\", @progbits",
    ".weak __dcgettext",
    ".type __dcgettext, @function",
    "__dcgettext:",
    "mov rax, rsi",
    "ret",
    ".size __dcgettext, . - __dcgettext",
    ".popsection",
);

/// What the standard library's panic handler calls for a backtrace; it finds no frame.
#[cfg(all(
    target_arch = "x86_64",
    target_feature = "crt-static",
    target_env = "gnu",
    panic = "abort"
))]
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
extern "C" fn _Unwind_Backtrace(_trace: *const (), _argument: *const ()) -> core::ffi::c_int {
    const URC_END_OF_STACK: core::ffi::c_int = 5;
    URC_END_OF_STACK
}

/// The rest of the unwinder's interface, which pthread_exit(3) and the personality routines ask for.
#[cfg(all(
    target_arch = "x86_64",
    target_feature = "crt-static",
    target_env = "gnu",
    panic = "abort"
))]
macro_rules! never_called {
    ($($name:literal)*) => {
        std::arch::global_asm!(
            ".pushsection .text._Unwind, \"ax\", @progbits",
            $(concat!(".weak ", $name), concat!(".type ", $name, ", @function"), concat!($name, ":"),)*
            "jmp abort",
            ".popsection",
        );
    };
}

#[cfg(all(
    target_arch = "x86_64",
    target_feature = "crt-static",
    target_env = "gnu",
    panic = "abort"
))]
never_called!(
    "_Unwind_DeleteException" "_Unwind_FindEnclosingFunction" "_Unwind_Find_FDE" "_Unwind_ForcedUnwind" "_Unwind_GetCFA"
    "_Unwind_GetDataRelBase" "_Unwind_GetGR" "_Unwind_GetIP" "_Unwind_GetIPInfo" "_Unwind_GetLanguageSpecificData"
    "_Unwind_GetRegionStart" "_Unwind_GetTextRelBase" "_Unwind_RaiseException" "_Unwind_Resume"
    "_Unwind_Resume_or_Rethrow" "_Unwind_SetGR" "_Unwind_SetIP" "__gcc_personality_v0"
);
