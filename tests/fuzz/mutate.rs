//! Turns good inputs into bad ones: a few random changes to an input of the corpus.

use crate::rng::Rng;

/// No input is longer, in bytes: far beyond what each cap in the code allows for a head, and enough to fill buffers.
pub const LONGEST: usize = 256 * 1024;

/// Pieces that mean something to one of the formats.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\"\"",
    b"\\ud800",
    b"\\u0000",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"../",
    b"%00",
    b"\xff\xfe",
    b"\xf0\x9f\xa6\x80",
    b"*a",
    b"&a ",
    b"<<: ",
    b"!!binary ",
    b": ",
    b"- ",
];

/// A changed copy of `input`; `other` is what it may be spliced with.
pub fn mutate(rng: &mut Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..rng.range(1, 6) {
        change(rng, &mut bytes, other);
    }
    bytes.truncate(LONGEST);
    bytes
}

/// A place in `bytes`, the end included.
fn place(rng: &mut Rng, bytes: &[u8]) -> usize {
    rng.range(0, bytes.len() as u64) as usize
}

/// A piece of `bytes`, of at most `most` bytes.
fn piece(rng: &mut Rng, bytes: &[u8], most: usize) -> std::ops::Range<usize> {
    let start = place(rng, bytes);
    let length = rng.range(0, (bytes.len() - start).min(most) as u64) as usize;
    start..start + length
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: impl IntoIterator<Item = u8>) {
    drop(bytes.splice(at..at, piece));
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = place(rng, bytes);
    match rng.range(0, 9) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.range(0, 7);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.draw() as u8;
            }
        }
        2 => {
            let noise: Vec<u8> = (0..rng.range(1, 16)).map(|_| rng.draw() as u8).collect();
            insert(bytes, at, noise);
        }
        3 => {
            let gone = piece(rng, bytes, 64);
            drop(bytes.drain(gone));
        }
        4 => {
            let again = bytes[piece(rng, bytes, 256)].to_vec();
            insert(bytes, at, again);
        }
        5 => {
            let word = WORDS[rng.range(0, WORDS.len() as u64 - 1) as usize];
            insert(bytes, at, word.iter().copied());
        }
        6 => bytes.truncate(at),
        7 => {
            let theirs = other[piece(rng, other, 512)].to_vec();
            insert(bytes, at, theirs);
        }
        8 => number(rng, bytes, at),
        // Many of one thing: nesting, long lines, long lists.
        _ => {
            let unit = bytes[piece(rng, bytes, 8)].to_vec();
            let times = 1 << rng.range(1, 14);
            let room = LONGEST.saturating_sub(bytes.len());
            let many: Vec<u8> = unit.iter().copied().cycle().take((unit.len() * times).min(room)).collect();
            insert(bytes, at, many);
        }
    }
}

/// Puts another number in the place of the first one behind `at`.
fn number(rng: &mut Rng, bytes: &mut Vec<u8>, at: usize) {
    const NUMBERS: &[&str] =
        &["0", "-1", "1", "255", "65536", "4294967296", "9223372036854775808", "18446744073709551615", "1e400", "0.1"];
    let digit = |b: &u8| b.is_ascii_digit();
    let Some(start) = bytes[at..].iter().position(digit).map(|from| at + from) else { return };
    let end = bytes[start..].iter().position(|b| !digit(b)).map_or(bytes.len(), |length| start + length);
    let number = NUMBERS[rng.range(0, NUMBERS.len() as u64 - 1) as usize];
    drop(bytes.splice(start..end, number.bytes()));
}
