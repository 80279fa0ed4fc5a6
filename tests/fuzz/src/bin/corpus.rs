//! corpus lay-out FOLDER: writes what each target starts from into FOLDER/TARGET and the words of it into the dictionary
//! FOLDER/TARGET.words, and prints each target's name and longest input.
//! corpus keep TARGET FOLDER: keeps the files of FOLDER for TARGET, or as many of them, short and long ones, as are few
//! bytes.

// Brings the functions that instrumented code calls.
#[cfg(feature = "libfuzzer")]
use libfuzzer_sys as _;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cuda_entrypoint_fuzz::{TARGETS, kept, pack};

/// Most bytes that are kept of a target.
const MOST_BYTES: usize = 40 << 10;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["lay-out", folder] => lay_out(Path::new(folder)),
        ["keep", target, folder] => keep(target, Path::new(folder)),
        _ => panic!("corpus lay-out FOLDER | corpus keep TARGET FOLDER"),
    }
}

fn own() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn lay_out(folder: &Path) {
    for target in TARGETS {
        let inputs = folder.join(target.name);
        fs::create_dir_all(&inputs).expect("the folder can be made");
        for (name, input) in kept(target, own()) {
            fs::write(inputs.join(name), input).expect("the input can be written");
        }
        // One word a line, in quotes.
        let words: BTreeSet<String> = (target.seeds)().iter().flat_map(|seed| words(seed)).collect();
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

fn keep(name: &str, folder: &Path) {
    let target = TARGETS.iter().find(|known| known.name == name);
    let seeds = (target
        .unwrap_or_else(|| panic!("no target is called {name}"))
        .seeds)();
    let entries = fs::read_dir(folder).expect("the folder is listed");
    let mut inputs: Vec<Vec<u8>> = entries
        .map(|entry| fs::read(entry.expect("the folder is listed").path()).expect("the input is read"))
        .filter(|input| !seeds.contains(input))
        .collect();
    inputs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    // Every one, or every second, or every third.
    let packed = (1..).map(|step| pack(inputs.iter().step_by(step).map(Vec::as_slice)));
    let packed = packed
        .into_iter()
        .find(|packed| packed.len() <= MOST_BYTES || inputs.len() < 2);
    let folder = own().join("corpus");
    fs::create_dir_all(&folder).expect("the folder can be made");
    fs::write(folder.join(format!("{name}.bin")), packed.unwrap_or_default())
        .expect("the corpus can be written");
}
