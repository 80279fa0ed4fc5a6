//! seeds FOLDER: writes each target's seeds into FOLDER/TARGET and their words into the dictionary FOLDER/TARGET.words,
//! and prints each target's name and longest input.

// Brings the functions that instrumented code calls.
#[cfg(feature = "libfuzzer")]
use libfuzzer_sys as _;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

fn main() {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("a folder"));
    for target in cuda_entrypoint_fuzz::TARGETS {
        let own = folder.join(target.name);
        fs::create_dir_all(&own).expect("the folder can be made");
        let seeds = (target.seeds)();
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(own.join(format!("seed-{number}")), seed).expect("the seed can be written");
        }
        // One word a line, in quotes.
        let words: BTreeSet<String> = seeds.iter().flat_map(|seed| words(seed)).collect();
        let words: String = words.iter().map(|word| format!("\"{word}\"\n")).collect();
        fs::write(folder.join(format!("{}.words", target.name)), words).expect("the words can be written");
        println!("{} {}", target.name, target.longest);
    }
}

/// What libFuzzer would hardly come to by itself: keys and names.
fn words(seed: &[u8]) -> Vec<String> {
    let of_word = |b: &u8| b.is_ascii_alphanumeric() || b"_-.".contains(b);
    seed.split(|b| !of_word(b))
        .filter(|word| (3..=32).contains(&word.len()))
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}
