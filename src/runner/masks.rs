//! Masks credentials in kept texts. None should be in them, but an operator's script may print one.

use crate::text::escaped_lines;

/// The replacement for a credential.
const MASK: &str = "***";
/// Prefixes of GitHub's tokens, and of JSON in base64: JIT configs, JWTs.
const BEGINNINGS: [&str; 7] = ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "eyJ"];
/// The fewest letters of a credential after its prefix.
const LEAST: usize = 20;
/// A registration token is that long, capital letters and digits.
const REGISTRATION_TOKEN: usize = 29;
/// Mixed letters of at least this length are a key or an encoded document.
const BLOB: usize = 100;

/// The text with [`MASK`] in place of likely credentials, and with control characters escaped.
pub fn masked(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(in_a_word) {
        let (between, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !in_a_word(c)).unwrap_or(from.len()));
        kept.push_str(between);
        push_masked(&mut kept, word);
        rest = after;
    }
    kept.push_str(rest);
    escaped_lines(&kept).into_owned()
}

fn in_a_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '/' | '.')
}

fn push_masked(kept: &mut String, word: &str) {
    let begins = BEGINNINGS.iter().filter_map(|start| word.find(start)).min();
    if let Some((before, found)) = begins.and_then(|at| word.split_at_checked(at))
        && found.len() >= LEAST
    {
        kept.push_str(before);
        kept.push_str(MASK);
        return;
    }
    let pieces = || word.split(|c: char| !c.is_ascii_alphanumeric());
    kept.push_str(if pieces().any(is_registration_token) || is_blob(word) { MASK } else { word });
}

fn is_registration_token(word: &str) -> bool {
    word.len() == REGISTRATION_TOKEN
        && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        && word.bytes().any(|b| b.is_ascii_digit())
}

/// Base64 of something long. A path has dots, or fewer kinds of letters between its slashes.
fn is_blob(word: &str) -> bool {
    let mixed = |piece: &str| {
        [char::is_lowercase, char::is_uppercase, char::is_numeric].iter().all(|kind| piece.contains(*kind))
    };
    word.split('.').any(|piece| piece.len() >= BLOB && mixed(piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_credential_is_not_kept() {
        let jit = format!("eyJ{}==", "aB3+/".repeat(40));
        let blob = "aB3+/".repeat(20);
        let token = "AABF3JGZDX3P5PMEXLND6TS6FCWO6";
        for secret in [&jit, &blob, token, "ghp_0123456789abcdefghij", "github_pat_11AAAAAAA0123456789"] {
            for around in ["@", "PAT=@ and more", "\"@\",\n", "https://x:@/é"] {
                let text = masked(&around.replace('@', secret));
                assert!(text.contains(MASK) && !text.contains(&secret[3..20]), "{text}");
                let words = around.split(['@', ':']).next().unwrap();
                assert!(text.starts_with(words), "{text}");
            }
        }
        let path = format!("/usr/share/{}", "Some/long-path/of2/".repeat(10));
        for plain in ["", "apt-get: E: Unable to locate package ghp", "x = 3 é\u{fffd}", "eyJust", &path[..99]] {
            assert_eq!(masked(plain), plain);
        }
        assert_eq!(masked("10%\r\u{1b}[31mred\n"), "10%\n\\x1b[31mred\n");
    }
}
