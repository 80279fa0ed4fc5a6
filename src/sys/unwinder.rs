//! Keeps libgcc's unwinder, and what it is for, out of the static program: 198 KB.
//!
//! A panic aborts, and the program carries neither tables for unwinding nor symbols, so that there is nothing to walk through
//! or to print. The optimiser sees that [`_Unwind_Backtrace`] never calls back, and leaves out the standard library's readers
//! of DWARF and its demangler too. `RUST_BACKTRACE` prints an empty backtrace.
//!
//! Source of the names: Itanium C++ ABI, "Exception Handling", level I, and libgcc's unwind.h.

use core::ffi::c_int;

use super::c_library::instructions;

/// What the standard library's panic handler calls for a backtrace; it finds no frame.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
extern "C" fn _Unwind_Backtrace(_trace: *const (), _argument: *const ()) -> c_int {
    const URC_END_OF_STACK: c_int = 5;
    URC_END_OF_STACK
}

/// Functions that abort: weak, so that an unwinder which is linked all the same has the last word.
macro_rules! never_called {
    ($($name:literal)*) => {
        std::arch::global_asm!(
            ".pushsection .text._Unwind, \"ax\", @progbits",
            $(concat!(".weak ", $name), concat!(".type ", $name, ", @function"), concat!($name, ":"),)*
            instructions!(abort),
            ".popsection",
        );
    };
}

// The rest of the interface, which pthread_exit(3) and the personality routines ask for.
never_called!(
    "_Unwind_DeleteException" "_Unwind_FindEnclosingFunction" "_Unwind_Find_FDE" "_Unwind_ForcedUnwind" "_Unwind_GetCFA"
    "_Unwind_GetDataRelBase" "_Unwind_GetGR" "_Unwind_GetIP" "_Unwind_GetIPInfo" "_Unwind_GetLanguageSpecificData"
    "_Unwind_GetRegionStart" "_Unwind_GetTextRelBase" "_Unwind_RaiseException" "_Unwind_Resume"
    "_Unwind_Resume_or_Rethrow" "_Unwind_SetGR" "_Unwind_SetIP" "__gcc_personality_v0"
);
