//! Inputs that are longer than libFuzzer would make them by itself: what a depth or a square would show in.

/// A piece of another target's input, many times over.
pub mod repeated {
    use super::super::TARGETS;
    use super::super::input::Input;

    /// Files of a quarter of a megabyte are read.
    const LONGEST: usize = 256 << 10;

    pub fn run(bytes: &[u8]) {
        let mut input = Input::new(bytes);
        let number = usize::from(input.u8());
        let (from, length, times) = (
            usize::from(input.u16()),
            usize::from(input.u8()),
            usize::from(input.u16()),
        );
        let body = input.rest();
        // Targets that change a document have no use for length, and those that write files are slow without it.
        let others: Vec<_> = TARGETS.iter().filter(|target| takes_bytes(target.name)).collect();
        let target = others[number % others.len()];
        let from = from.min(body.len());
        let (head, tail) = body.split_at(from);
        let piece = &tail[..length.min(tail.len())];
        let times = times.min(LONGEST / piece.len().max(1));
        let mut long = head.to_vec();
        long.extend(piece.repeat(times));
        long.extend(tail);
        (target.run)(&long);
    }

    fn takes_bytes(name: &str) -> bool {
        !name.ends_with("_changed") && !matches!(name, "repeated" | "judged" | "folder" | "libraries")
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let others = TARGETS.iter().filter(|target| takes_bytes(target.name));
        for (number, target) in others.enumerate() {
            for seed in (target.seeds)().iter().filter(|seed| seed.len() < 1500) {
                for part in 1..3 {
                    let from = (seed.len() * part / 3) as u16;
                    let mut bytes = vec![number as u8];
                    bytes.extend(from.to_le_bytes());
                    bytes.push(20);
                    bytes.extend(600_u16.to_le_bytes());
                    bytes.extend(seed);
                    all.push(bytes);
                }
            }
        }
        all
    }
}
