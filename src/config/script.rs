//! Recognises set-up scripts that were written for the Python daemon.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::file;

/// SHA-256 of the set-up scripts that came with the Python daemon.
const SCRIPTS: [&str; 3] = [
    "5d5c87622183a31fb3c18dc9b4f5b42bb8545a16df6f031cb8165aa9c975b071",
    "d0cf376a0634a794af834a12605a0e66663b986cc637564bb2ee7e6f78046511",
    "569a57c8be693b26708e1c13209c5b2290eb5dcf0287c65fae36a33872b34749",
];
/// What only a set-up script for the Python daemon names.
const SCRIPT_WORDS: [&str; 6] =
    ["GHA_TOKEN", "GHA_URL", "GHA_NAME", "GHA_EXTRA_LABELS", "setupvars.conf", "actions-runner.tgz"];
/// A longer file is not a set-up script.
pub(super) const LONGEST: u64 = 1024 * 1024;

/// True for an unchanged set-up script of the Python daemon: the built-in set-up does the same.
pub(super) fn is_own_script(script: &Path) -> bool {
    let text = file::read_text(script, LONGEST).unwrap_or_default();
    let digest: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    SCRIPTS.contains(&digest.as_str())
}

/// The word that shows that a set-up script was written for the Python daemon: such a script registers and starts the
/// runner itself.
pub(super) fn word(text: &str) -> Option<&'static str> {
    let code = |line: &&str| !line.trim_start().starts_with('#');
    let in_code = |word: &str| text.lines().filter(code).any(|line| line.contains(word));
    SCRIPT_WORDS.into_iter().find(|word| in_code(word))
}
