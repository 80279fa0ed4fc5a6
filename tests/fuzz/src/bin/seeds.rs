//! seeds FOLDER: writes each target's seeds into FOLDER/TARGET, and prints each target's name and longest input.

// Brings the functions that instrumented code calls.
#[cfg(feature = "libfuzzer")]
use libfuzzer_sys as _;

use std::fs;
use std::path::PathBuf;

fn main() {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("a folder"));
    for target in cuda_entrypoint_fuzz::TARGETS {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder).expect("the folder can be made");
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed).expect("the seed can be written");
        }
        println!("{} {}", target.name, target.longest);
    }
}
