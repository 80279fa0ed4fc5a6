//! Exit codes that are not a finding's.

/// sysexits.h: a command line that makes no sense
pub const EX_USAGE: u8 = 64;
/// sysexits.h: our own fault
pub const EX_SOFTWARE: u8 = 70;
/// sysexits.h: a file that cannot be made
pub const EX_CANTCREAT: u8 = 73;
/// sysexits.h: standard output that cannot be written
pub const EX_IOERR: u8 = 74;
/// sysexits.h: a bad manifest or setting
pub const EX_CONFIG: u8 = 78;
/// the image's fault, as [`cuda_entrypoint::check::Code::exit_code`] has it
pub const EX_IMAGE: u8 = 81;
