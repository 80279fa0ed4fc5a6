//! Zstandard, for one frame that is in memory as a whole: what nvcc 13 compresses with, and 12.8 when it is asked to.
//!
//! Source: RFC 8878, section 3. A crate that does all of Zstandard takes more room in the binary than everything else
//! that reads fat binaries. Dictionaries are not known, and the checksum is not held: a wrong byte only makes a cubin
//! that cannot be read.

const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// Greatest accuracy of an FSE table that any part of the format allows.
const MAX_ACCURACY: u32 = 9;
/// Bits of a [`Backwards`] stream that one look at it shows.
const WINDOW: u32 = 57;
/// Longest code of a Huffman table.
const MAX_HUFFMAN_BITS: u32 = 11;

/// The default distributions (section 3.1.1.3.2.2), and the extra bits of each code (3.1.1.3.2.1).
const LITERALS_DEFAULT: [i16; 36] = [
    4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1,
    -1, -1,
];
const MATCH_DEFAULT: [i16; 53] = [
    1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
];
const OFFSET_DEFAULT: [i16; 29] = [
    1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
];
/// The codes below 16 (literals) and 32 (matches) have none.
const LITERALS_BITS: [u8; 20] = [1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const MATCH_BITS: [u8; 21] = [
    1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
];

/// A frame that unpacks to exactly `size` bytes; `None` for anything else.
pub fn zstd(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut input = Bytes(packed.strip_prefix(&MAGIC)?);
    let descriptor = input.byte()?;
    let single_segment = descriptor & 0x20 != 0;
    // A reserved bit, and dictionaries.
    if descriptor & 0x0B != 0 {
        return None;
    }
    if !single_segment {
        input.byte()?; // the size of a window, of which all is in memory here
    }
    let content = match descriptor >> 6 {
        0 if single_segment => Some(input.number(1)?),
        0 => None,
        1 => Some(input.number(2)?.checked_add(256)?),
        2 => Some(input.number(4)?),
        _ => Some(input.number(8)?),
    };
    if content.is_some_and(|content| content != size) {
        return None;
    }
    let mut frame = Frame {
        out: Vec::with_capacity(size),
        size,
        huffman: None,
        tables: [None, None, None],
        recent: [1, 4, 8],
    };
    loop {
        let header = input.number(3)?;
        let length = header >> 3;
        match header >> 1 & 3 {
            0 => frame.literals(input.take(length)?)?,
            1 => {
                let byte = input.byte()?;
                frame.repeat(byte, length)?;
            }
            2 => frame.block(input.take(length)?)?,
            _ => return None,
        }
        if header & 1 != 0 {
            return (frame.out.len() == size).then_some(frame.out);
        }
    }
}

/// What one block leaves to the next.
struct Frame {
    out: Vec<u8>,
    size: usize,
    huffman: Option<Huffman>,
    /// lengths of literals, offsets, lengths of matches
    tables: [Option<Fse>; 3],
    recent: [usize; 3],
}

impl Frame {
    fn room(&self) -> usize {
        self.size.saturating_sub(self.out.len())
    }

    fn literals(&mut self, bytes: &[u8]) -> Option<()> {
        (bytes.len() <= self.room()).then(|| self.out.extend_from_slice(bytes))
    }

    fn repeat(&mut self, byte: u8, count: usize) -> Option<()> {
        (count <= self.room()).then(|| self.out.resize(self.out.len() + count, byte))
    }

    fn block(&mut self, block: &[u8]) -> Option<()> {
        let mut input = Bytes(block);
        let literals = self.literals_section(&mut input)?;
        let mut rest = literals.as_slice();
        let count = match input.byte()? {
            few @ 0..=127 => usize::from(few),
            255 => input.number(2)?.checked_add(0x7F00)?,
            more => (usize::from(more - 128) << 8) + usize::from(input.byte()?),
        };
        if count > 0 {
            self.sequences(&mut input, count, &mut rest)?;
        } else if !input.0.is_empty() {
            return None;
        }
        self.literals(rest)
    }

    fn literals_section(&mut self, input: &mut Bytes<'_>) -> Option<Vec<u8>> {
        let first = usize::from(*input.0.first()?);
        let (kind, format) = (first & 3, first >> 2 & 3);
        if kind < 2 {
            let (bytes, shift) = match format {
                0 | 2 => (1, 3),
                1 => (2, 4),
                _ => (3, 4),
            };
            let length = input.number(bytes)? >> shift;
            if length > self.room() {
                return None;
            }
            return match kind {
                0 => Some(input.take(length)?.to_vec()),
                _ => Some(vec![input.byte()?; length]),
            };
        }
        let (bytes, bits) = match format {
            0 | 1 => (3, 10),
            2 => (4, 14),
            _ => (5, 18),
        };
        let header = input.number(bytes)?;
        let mask = (1 << bits) - 1;
        let length = header >> 4 & mask;
        if length > self.room() {
            return None;
        }
        let mut packed = Bytes(input.take(header >> (4 + bits) & mask)?);
        if kind == 2 {
            self.huffman = Some(Huffman::read(&mut packed)?);
        }
        let huffman = self.huffman.as_ref()?;
        let mut plain = Vec::with_capacity(length);
        if format == 0 {
            huffman.decode(packed.0, length, &mut plain)?;
        } else {
            let sizes = [packed.number(2)?, packed.number(2)?, packed.number(2)?];
            let quarter = length.checked_add(3)? / 4;
            for size in sizes {
                huffman.decode(packed.take(size)?, quarter, &mut plain)?;
            }
            let last = length.checked_sub(quarter.checked_mul(3)?)?;
            huffman.decode(packed.0, last, &mut plain)?;
        }
        Some(plain)
    }

    fn sequences(&mut self, input: &mut Bytes<'_>, count: usize, rest: &mut &[u8]) -> Option<()> {
        let modes = input.byte()?;
        let kinds: [(&[i16], u32, u32, usize); 3] = [
            (&LITERALS_DEFAULT, 6, 9, 36),
            (&OFFSET_DEFAULT, 5, 8, 32),
            (&MATCH_DEFAULT, 6, 9, 53),
        ];
        for (index, (default, accuracy, most, symbols)) in kinds.into_iter().enumerate() {
            let place = self.tables.get_mut(index)?;
            match modes >> (6 - 2 * index) & 3 {
                0 => *place = Some(Fse::of(default, accuracy)?),
                1 => {
                    let symbol = input.byte()?;
                    *place = Some(Fse::always(symbol).filter(|_| usize::from(symbol) < symbols)?);
                }
                2 => *place = Some(Fse::read(input, most, symbols)?),
                _ => {}
            }
        }
        if modes & 3 != 0 {
            return None;
        }
        let [Some(lengths), Some(offsets), Some(matches)] = &self.tables else {
            return None;
        };
        let mut bits = Backwards::new(input.0)?;
        let mut states = [
            bits.take(lengths.accuracy)?,
            bits.take(offsets.accuracy)?,
            bits.take(matches.accuracy)?,
        ];
        let mut found = Vec::new();
        for left in (0..count).rev() {
            let [length, offset, matched] = states;
            let (length, offset, matched) = (lengths.at(length)?, offsets.at(offset)?, matches.at(matched)?);
            let value =
                (1_usize.checked_shl(offset.symbol.into())?).checked_add(bits.take(offset.symbol.into())?)?;
            let matching = bits.number(matched.symbol, 32, 3, &MATCH_BITS)?;
            let literal = bits.number(length.symbol, 16, 0, &LITERALS_BITS)?;
            found.push((literal, value, matching));
            if left > 0 {
                states[0] = length.next + bits.take(length.bits)?;
                states[2] = matched.next + bits.take(matched.bits)?;
                states[1] = offset.next + bits.take(offset.bits)?;
            }
            // Every sequence makes three bytes at least, so that a lie about their number ends here.
            if found.len() > self.size {
                return None;
            }
        }
        if bits.left != 0 {
            return None;
        }
        for (literal, value, matching) in found {
            let (now, later) = rest.split_at_checked(literal)?;
            *rest = later;
            self.literals(now)?;
            let offset = self.offset(value, literal == 0)?;
            self.copy(offset, matching)?;
        }
        Some(())
    }

    /// What an offset's value stands for: 1 to 3 are the recent ones.
    fn offset(&mut self, value: usize, no_literals: bool) -> Option<usize> {
        let [first, second, third] = self.recent;
        let (offset, recent) = match (value, no_literals) {
            (4.., _) => (value - 3, [value - 3, first, second]),
            (1, false) => (first, self.recent),
            (2, false) | (1, true) => (second, [second, first, third]),
            (3, false) | (2, true) => (third, [third, first, second]),
            _ => {
                let one_less = first.checked_sub(1)?;
                (one_less, [one_less, first, second])
            }
        };
        self.recent = recent;
        Some(offset)
    }

    fn copy(&mut self, offset: usize, count: usize) -> Option<()> {
        if offset == 0 || count > self.room() {
            return None;
        }
        let from = self.out.len().checked_sub(offset)?;
        // A match may overlap what it produces: what it has so far is repeated, twice as much each time.
        let mut left = count;
        while left > 0 {
            let part = left.min(self.out.len() - from);
            self.out.extend_from_within(from..from + part);
            left -= part;
        }
        Some(())
    }
}

/// Bytes from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// A little-endian number of up to 8 bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        let bytes = self.take(bytes)?;
        Some(bytes.iter().rev().fold(0, |all, &b| all << 8 | usize::from(b)))
    }
}

/// Up to 32 bits from bit `at` on, the lowest first; those behind the end are 0.
fn bits_at(bytes: &[u8], at: usize, count: u32) -> usize {
    let near = bytes.get(at / 8..).unwrap_or_default();
    let all = match near.first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => near.iter().rev().fold(0, |all, &b| all << 8 | u64::from(b)),
    };
    (all >> (at % 8)) as usize & ((1 << count) - 1)
}

/// A stream of bits that is read from its end.
struct Backwards<'a> {
    bytes: &'a [u8],
    /// bits that are left; below 0 where more were taken than there are
    left: isize,
}

impl<'a> Backwards<'a> {
    /// The highest bit that is set in the last byte only marks the end.
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let mark = 8 - bytes.last()?.checked_ilog2()? as isize;
        let left = isize::try_from(bytes.len()).ok()?.checked_mul(8)? - mark;
        Some(Self { bytes, left })
    }

    /// The next bits without taking them, with zeros where there are no more.
    fn peek(&self, count: u32) -> usize {
        let from = self.left - count as isize;
        match usize::try_from(from) {
            Ok(from) => bits_at(self.bytes, from, count),
            Err(_) => {
                let beyond = from.unsigned_abs() as u32;
                let there = count.saturating_sub(beyond);
                bits_at(self.bytes, 0, there) << beyond.min(count)
            }
        }
    }

    /// The next [`WINDOW`] bits at least, the first of them the highest; with zeros where there are no more.
    fn window(&self) -> u64 {
        let left = usize::try_from(self.left).unwrap_or(0);
        let end = left.div_ceil(8);
        let near = self.bytes.get(..end).unwrap_or_default();
        let word = match near.last_chunk() {
            Some(word) => u64::from_le_bytes(*word),
            None => {
                near.iter().rev().fold(0, |all, &b| all << 8 | u64::from(b)) << (64 - 8 * near.len()).min(63)
            }
        };
        word << (8 * end - left)
    }

    fn skip(&mut self, count: u32) {
        self.left -= count as isize;
    }

    fn take(&mut self, count: u32) -> Option<usize> {
        if count > 31 || (count as isize) > self.left {
            return None;
        }
        let bits = self.peek(count);
        self.skip(count);
        Some(bits)
    }

    /// The number of a code: `plain` codes stand for themselves, and each of the others for as many as its bits tell
    /// apart.
    fn number(&mut self, code: u8, plain: u8, least: usize, extra: &[u8]) -> Option<usize> {
        let Some(index) = code.checked_sub(plain) else {
            return Some(usize::from(code) + least);
        };
        let before = extra.get(..usize::from(index))?;
        let base = before
            .iter()
            .fold(usize::from(plain) + least, |sum, &bits| sum + (1 << bits));
        let bits = *extra.get(usize::from(index))?;
        Some(base + self.take(bits.into())?)
    }
}

/// A state of an FSE table.
#[derive(Clone, Copy, Default)]
struct State {
    symbol: u8,
    bits: u32,
    next: usize,
}

struct Fse {
    accuracy: u32,
    states: Vec<State>,
}

impl Fse {
    fn at(&self, state: usize) -> Option<State> {
        self.states.get(state).copied()
    }

    fn always(symbol: u8) -> Option<Self> {
        let only = State {
            symbol,
            ..State::default()
        };
        Some(Self {
            accuracy: 0,
            states: vec![only],
        })
    }

    /// Section 4.1.1: reads a distribution of at most `symbols` symbols.
    fn read(input: &mut Bytes<'_>, most: u32, symbols: usize) -> Option<Self> {
        let bytes = input.0;
        let accuracy = bits_at(bytes, 0, 4) as u32 + 5;
        if accuracy > most.min(MAX_ACCURACY) {
            return None;
        }
        let mut at = 4;
        let mut remaining = 1_usize << accuracy;
        let mut counts = Vec::with_capacity(symbols);
        while remaining > 0 {
            // Values that cannot come any more leave room for shorter codes.
            let bits = (remaining + 1).checked_ilog2()? + 1;
            let value = bits_at(bytes, at, bits);
            let low = value & ((1 << (bits - 1)) - 1);
            let short = (1 << bits) - 2 - remaining;
            let (value, taken) = match low < short {
                true => (low, bits - 1),
                false if value == low => (value, bits),
                false => (value - short, bits),
            };
            at += taken as usize;
            let count = i16::try_from(value).ok()? - 1;
            remaining = remaining.checked_sub(count.unsigned_abs().into())?;
            counts.push(count);
            if count == 0 {
                loop {
                    let zeros = bits_at(bytes, at, 2);
                    at += 2;
                    counts.resize(counts.len() + zeros, 0);
                    if zeros < 3 || counts.len() > symbols {
                        break;
                    }
                }
            }
            if counts.len() > symbols {
                return None;
            }
        }
        input.take(at.div_ceil(8))?;
        Self::of(&counts, accuracy)
    }

    /// The table of a distribution; -1 is a count of "less than one".
    fn of(counts: &[i16], accuracy: u32) -> Option<Self> {
        let size = 1_usize << accuracy;
        let mut states = vec![State::default(); size];
        let mut high = size;
        let mut next: Vec<usize> = counts.iter().map(|c| usize::from(c.unsigned_abs())).collect();
        for (symbol, _) in counts.iter().enumerate().filter(|(_, c)| **c < 0) {
            high = high.checked_sub(1)?;
            states.get_mut(high)?.symbol = u8::try_from(symbol).ok()?;
        }
        let step = (size >> 1) + (size >> 3) + 3;
        let mut at = 0;
        for (symbol, &count) in counts.iter().enumerate() {
            for _ in 0..count {
                states.get_mut(at)?.symbol = u8::try_from(symbol).ok()?;
                at = (at + step) & (size - 1);
                while at >= high {
                    at = (at + step) & (size - 1);
                }
            }
        }
        for state in &mut states {
            let count = next.get_mut(usize::from(state.symbol))?;
            state.bits = accuracy.checked_sub(count.checked_ilog2()?)?;
            state.next = (*count << state.bits).checked_sub(size)?;
            *count += 1;
        }
        Some(Self { accuracy, states })
    }
}

/// Symbol and length of the code, by the next bits of a stream.
struct Huffman {
    bits: u32,
    codes: Vec<(u8, u32)>,
}

impl Huffman {
    /// Section 4.2.1: weights, of which the last is what is missing.
    fn read(input: &mut Bytes<'_>) -> Option<Self> {
        let header = usize::from(input.byte()?);
        let mut weights = match header.checked_sub(127) {
            Some(count) => {
                let bytes = input.take(count.div_ceil(2))?;
                let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
                nibbles.take(count).collect()
            }
            None => packed_weights(input.take(header)?)?,
        };
        if weights.iter().any(|&weight| u32::from(weight) > MAX_HUFFMAN_BITS) {
            return None;
        }
        let share = |weight: u8| (1_usize << weight) >> 1;
        let sum: usize = weights.iter().map(|&w| share(w)).sum();
        let bits = sum.checked_ilog2()? + 1;
        let left = (1_usize << bits) - sum;
        if bits > MAX_HUFFMAN_BITS || !left.is_power_of_two() {
            return None;
        }
        weights.push(u8::try_from(left.ilog2() + 1).ok()?);
        let mut codes = Vec::with_capacity(1 << bits);
        for weight in 1..=bits {
            for (symbol, _) in weights
                .iter()
                .enumerate()
                .filter(|(_, w)| u32::from(**w) == weight)
            {
                let code = (u8::try_from(symbol).ok()?, bits + 1 - weight);
                codes.resize(codes.len() + (1 << (weight - 1)), code);
            }
        }
        Some(Self { bits, codes })
    }

    /// Adds `count` symbols of a stream, which has no more.
    fn decode(&self, bytes: &[u8], count: usize, out: &mut Vec<u8>) -> Option<()> {
        let mut stream = Backwards::new(bytes)?;
        let mut left = count;
        while left > 0 {
            // As many as the longest codes fill.
            let mut window = stream.window();
            let few = left.min((WINDOW / MAX_HUFFMAN_BITS) as usize);
            for _ in 0..few {
                let (symbol, bits) = *self.codes.get((window >> (64 - self.bits)) as usize)?;
                window <<= bits;
                stream.skip(bits);
                out.push(symbol);
            }
            if stream.left < 0 {
                return None;
            }
            left -= few;
        }
        (stream.left == 0).then_some(())
    }
}

/// Weights in FSE: two states take turns until the bits are used up.
fn packed_weights(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut input = Bytes(bytes);
    let table = Fse::read(&mut input, 6, 256)?;
    let mut stream = Backwards::new(input.0)?;
    let mut state = table.at(stream.take(table.accuracy)?)?;
    let mut other = table.at(stream.take(table.accuracy)?)?;
    let mut weights = Vec::new();
    while weights.len() < 255 {
        weights.push(state.symbol);
        let bits = stream.peek(state.bits);
        stream.skip(state.bits);
        if stream.left < 0 {
            weights.push(other.symbol);
            return Some(weights);
        }
        let next = table.at(state.next + bits)?;
        (state, other) = (other, next);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of many blocks: stored, repeated and compressed, literals with and without a table of their own in one
    /// and in four streams, and tables that are the default, new, and the last block's.
    const BLOCKS: &[u8] = include_bytes!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/kernels/zstd/blocks.zst"
    ));
    const PLAIN: &[u8] = include_bytes!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/kernels/zstd/blocks.plain"
    ));

    /// The frames in a section that nvcc compressed, with the size that their headers state.
    fn frames(section: &[u8]) -> Vec<(&[u8], usize)> {
        let starts = (0..section.len()).filter(|&at| section[at..].starts_with(&MAGIC));
        starts
            .map(|at| {
                let frame = &section[at..];
                let size = match frame[4] {
                    0x20 => usize::from(frame[5]),
                    0x60 => usize::from(u16::from_le_bytes([frame[5], frame[6]])) + 256,
                    other => panic!("descriptor {other:#x}"),
                };
                (frame, size)
            })
            .collect()
    }

    #[test]
    fn frames_of_nvcc_are_what_it_writes_without_compression() {
        let read = |name: &str| {
            let folder =
                std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kernels/nvcc-13.5");
            std::fs::read(folder.join(name)).unwrap()
        };
        let (compressed, plain) = (read("compressed.nv_fatbin"), read("uncompressed.nv_fatbin"));
        let frames = frames(&compressed);
        assert_eq!(frames.len(), 7);
        let found: Vec<bool> = frames
            .iter()
            .map(|(frame, size)| {
                let unpacked = zstd(frame, *size).unwrap();
                plain.windows(unpacked.len()).any(|part| part == unpacked)
            })
            .collect();
        // The two cubins for 10.3a are not in the other file.
        assert_eq!(found, [true, true, false, true, true, false, true]);
    }

    #[test]
    fn every_kind_of_block_unpacks() {
        assert_eq!(zstd(BLOCKS, PLAIN.len()).as_deref(), Some(PLAIN));
        for size in [0, 1, PLAIN.len() - 1, PLAIN.len() + 1] {
            assert_eq!(zstd(BLOCKS, size), None, "{size}");
        }
    }

    #[test]
    fn what_is_cut_or_damaged_is_refused_and_never_longer_than_asked_for() {
        let checksum = 4;
        for cut in 0..BLOCKS.len() - checksum {
            assert_eq!(zstd(&BLOCKS[..cut], PLAIN.len()), None, "cut to {cut}");
        }
        for at in 0..BLOCKS.len() {
            for flip in [1, 0x80, 0xFF] {
                let mut damaged = BLOCKS.to_vec();
                damaged[at] ^= flip;
                if let Some(plain) = zstd(&damaged, PLAIN.len()) {
                    assert_eq!(plain.len(), PLAIN.len(), "{at}");
                }
            }
        }
    }

    #[test]
    fn a_stored_and_a_repeated_block() {
        let frame = |block: &[u8]| [&MAGIC[..], &[0x20, 5], block].concat();
        assert_eq!(zstd(&frame(b"\x29\0\0hello"), 5).unwrap(), b"hello");
        assert_eq!(zstd(&frame(b"\x2b\0\0x"), 5).unwrap(), b"xxxxx");
        // more than was announced, the reserved kind, a dictionary
        assert_eq!(zstd(&frame(b"\x33\0\0x"), 5), None);
        assert_eq!(zstd(&frame(b"\x2f\0\0hello"), 5), None);
        let mut dictionary = frame(b"\x29\0\0hello");
        dictionary[4] |= 1;
        assert_eq!(zstd(&dictionary, 5), None);
    }
}
