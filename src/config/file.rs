//! Reading the files that the config names, never more of them than such a file has.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

const MIB: u64 = 1024 * 1024;
/// The longest file of certificates: many times the size of all public authorities together.
pub(super) const LONGEST_BUNDLE: u64 = 4 * MIB;

/// The file's bytes.
///
/// # Errors
/// It cannot be read, or has more than `most` bytes ([`ErrorKind::FileTooLarge`]): what has no end, such as a device, is
/// given up there, too.
pub(super) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let most = if most < MIB { format!("{} KiB", most / 1024) } else { format!("{} MiB", most / MIB) };
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {most}")));
    }
    Ok(bytes)
}

/// The file's text.
///
/// # Errors
/// As [`read`], and where it is not UTF-8 ([`ErrorKind::InvalidData`]).
pub(super) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_there_may_be() {
        let here = tempfile();
        std::fs::write(&here, [b'x'; 1024]).unwrap();
        assert_eq!(read(&here, 1024).unwrap().len(), 1024);
        let error = read(&here, 1023).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        std::fs::write(&here, [0xff]).unwrap();
        assert_eq!(read_text(&here, 9).unwrap_err().kind(), ErrorKind::InvalidData);
        std::fs::remove_file(&here).unwrap();
        // Read to its end, it would take all memory.
        let error = read(Path::new("/dev/zero"), 64 * 1024).unwrap_err();
        assert_eq!(error.to_string(), "it is larger than 64 KiB");
    }

    fn tempfile() -> std::path::PathBuf {
        std::env::temp_dir().join(format!("lxdrunner-config-file-{}", std::process::id()))
    }
}
