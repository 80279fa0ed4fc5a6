//! The stack manifest: what must be true.
