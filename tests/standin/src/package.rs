//! The runner stand-in's package: laid out and named as the real runner's, made of shell scripts that talk to the
//! GitHub stand-in. With padding it is as large, and has as many files, as the real one.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use lxdrunner::model::RunnerArch;

/// The version that the stand-in says it is, where no other is asked for.
pub const VERSION: &str = "2.330.0";

/// The scripts: their path in the package, their text, and whether they are programs.
const SCRIPTS: [(&str, &str, bool); 9] = [
    ("run.sh", include_str!("runner/run.sh"), true),
    ("run-helper.sh.template", include_str!("runner/run-helper.sh.template"), true),
    ("config.sh", include_str!("runner/config.sh"), true),
    ("env.sh", include_str!("runner/env.sh"), true),
    ("bin/Runner.Listener", include_str!("runner/bin/Runner.Listener"), true),
    ("bin/Runner.Worker", include_str!("runner/bin/Runner.Worker"), true),
    ("bin/installdependencies.sh", include_str!("runner/bin/installdependencies.sh"), true),
    ("bin/talk.sh", include_str!("runner/bin/talk.sh"), false),
    ("externals/README", "The real runner keeps its Node.js here.\n", false),
];

/// What package is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageSpec {
    pub version: String,
    /// In GitHub's words: `x64`.
    pub arch: String,
    /// `None`: only the scripts, a few kilobytes.
    pub padding: Option<Padding>,
}

/// Files that do nothing but weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    pub files: u64,
    /// Bytes unpacked, all files together; packed it is about a third.
    pub bytes: u64,
}

impl Padding {
    /// What the real runner has: 590 MB in 8,600 files.
    pub const REAL: Padding = Padding { files: 8_600, bytes: 589_000_000 };
}

impl PackageSpec {
    /// The small package.
    pub fn small(arch: RunnerArch) -> PackageSpec {
        PackageSpec { version: VERSION.to_owned(), arch: arch.as_str().to_owned(), padding: None }
    }

    /// The name of the package's file, in GitHub's pattern.
    pub fn filename(&self) -> String {
        format!("actions-runner-linux-{}-{}.tar.gz", self.arch, self.version)
    }
}

/// Changes with everything that goes into the package: who keeps one finds out by it whether it is still right.
pub fn fingerprint(spec: &PackageSpec) -> String {
    let scripts = SCRIPTS.map(|(name, text, _)| format!("{name}\n{text}")).concat();
    let digest = Sha256::digest(format!("{spec:?}\n{scripts}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A package that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltPackage {
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
    /// In hexadecimal, lower case.
    pub sha256: String,
}

/// Writes the small package of this architecture (in GitHub's words) and version into `dir`.
pub fn build(dir: &Path, arch: &str, version: &str) -> io::Result<BuiltPackage> {
    build_as(dir, &PackageSpec { version: version.to_owned(), arch: arch.to_owned(), padding: None })
}

/// Writes a package into `dir`, as a stream; two writers of the same package do not disturb each other.
pub fn build_as(dir: &Path, spec: &PackageSpec) -> io::Result<BuiltPackage> {
    let path = dir.join(spec.filename());
    let unfinished = dir.join(format!(".{}.{}", spec.filename(), std::process::id()));
    let written = write(&unfinished, spec).and_then(|(size, sha256)| {
        std::fs::rename(&unfinished, &path)?;
        Ok(BuiltPackage { path, size, sha256 })
    });
    if written.is_err() {
        // Half a package is of no use; that it could not be written is the error that is told.
        drop(std::fs::remove_file(&unfinished));
    }
    written
}

fn write(path: &Path, spec: &PackageSpec) -> io::Result<(u64, String)> {
    let out = Hashing { inner: BufWriter::new(File::create(path)?), hash: Sha256::new(), count: 0 };
    let level = if spec.padding.is_some() { Compression::fast() } else { Compression::default() };
    let mut tar = Builder::new(GzEncoder::new(out, level));
    for directory in ["./", "./bin/", "./externals/"] {
        append(&mut tar, directory, EntryType::Directory, 0o755, 0, io::empty())?;
    }
    for (name, text, program) in SCRIPTS {
        let mode = if program { 0o755 } else { 0o644 };
        append(&mut tar, &format!("./{name}"), EntryType::Regular, mode, text.len() as u64, text.as_bytes())?;
    }
    let version = format!("{}\n", spec.version);
    append(&mut tar, "./bin/version", EntryType::Regular, 0o644, version.len() as u64, version.as_bytes())?;
    if let Some(padding) = spec.padding {
        pad(&mut tar, padding)?;
    }
    let mut out = tar.into_inner()?.finish()?;
    out.flush()?;
    let digest = out.hash.finalize();
    Ok((out.count, digest.iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn append(
    tar: &mut Builder<impl Write>,
    name: &str,
    kind: EntryType,
    mode: u32,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    // A fixed time and owner: the same package has the same checksum everywhere. The owner is the real package's.
    header.set_mtime(1_750_000_000);
    header.set_uid(1001);
    header.set_gid(1001);
    tar.append_data(&mut header, name, content)
}

/// Many small files and a few large ones: every hundredth file is large, and these have six tenths of the bytes.
fn pad(tar: &mut Builder<impl Write>, padding: Padding) -> io::Result<()> {
    let large = padding.files.div_ceil(100);
    let small = padding.files - large;
    let for_large = if small == 0 { padding.bytes } else { padding.bytes / 10 * 6 };
    let mut filler = Filler { state: 0x9e37_79b9_7f4a_7c15, block: 0 };
    for n in 0..padding.files {
        let size = match n % 100 {
            0 => for_large / large,
            _ => (padding.bytes - for_large) / small,
        };
        let name = format!("./externals/pad/{}/{n}.bin", n / 100);
        append(tar, &name, EntryType::Regular, 0o644, size, (&mut filler).take(size))?;
    }
    Ok(())
}

/// An endless mix of which a third cannot be compressed: blocks of noise between blocks of one letter.
struct Filler {
    state: u64,
    block: u64,
}

impl Read for &mut Filler {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for chunk in buffer.chunks_mut(4096) {
            self.block += 1;
            if !self.block.is_multiple_of(3) {
                chunk.fill(b'a' + u8::try_from(self.block % 26).unwrap_or(0));
                continue;
            }
            for eight in chunk.chunks_mut(8) {
                // Marsaglia's xorshift; noise is all that is wanted of it.
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                let bytes = self.state.to_le_bytes();
                eight.copy_from_slice(bytes.get(..eight.len()).unwrap_or(&bytes));
            }
        }
        Ok(buffer.len())
    }
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
    count: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or(bytes));
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
