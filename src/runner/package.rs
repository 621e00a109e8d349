//! The runner packages on this machine: looked up at GitHub, downloaded once, verified, kept.
//!
//! A package gets its final name only after all of it was verified and synced, so that no start has to hash 200 MB. Beside it
//! is `NAME.sha256`, for `sha256sum -c`. While it is downloaded it is `NAME.part`, locked by the downloading process; after a
//! crash the next download resumes the part if the server still has the same body.

mod error;
mod fetch;
mod names;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

pub use error::Error;
use names::{Name, Version};

use crate::github::{Download, GitHub};
use crate::model::{RunnerArch, RunnerLife, Scope};

/// Versions kept of each architecture.
const KEPT: usize = 2;

/// The packages below one directory.
#[derive(Clone, Debug)]
pub struct Packages {
    dir: PathBuf,
}

/// A cached, verified package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    pub path: PathBuf,
    /// `2.330.0`
    pub version: String,
    /// In bytes.
    pub size: u64,
    /// In hexadecimal, lower case.
    pub sha256: String,
}

/// The progress of a download.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Bytes received, including those of earlier attempts.
    pub done: u64,
    /// The whole length in bytes, if the server tells it.
    pub total: Option<u64>,
    /// Of this attempt, on average, in bytes.
    pub bytes_per_second: f64,
}

impl Packages {
    /// The packages in `cache_home`; the directory is made with the first download.
    pub fn new(cache_home: &Path) -> Packages {
        Packages { dir: cache_home.to_owned() }
    }

    /// The package of `wanted_version`, or of the newest version for runners of `scope`; downloaded if it is not cached, which may
    /// take minutes.
    ///
    /// GitHub lists only the newest version. The address of another one follows its pattern, and it has no checksum: only TLS
    /// protects it. A cached wanted version needs no question to GitHub. The caller starts one download of an architecture at a
    /// time; if another process downloads the same package, this waits for it.
    pub fn ensure(
        &self,
        github: &GitHub,
        scope: &Scope,
        arch: RunnerArch,
        wanted_version: Option<&str>,
    ) -> Result<Package, Error> {
        self.ensure_and_tell(github, scope, arch, wanted_version, &|_| ())
    }

    /// The same; `progress` is called now and then.
    pub fn ensure_and_tell(
        &self,
        github: &GitHub,
        scope: &Scope,
        arch: RunnerArch,
        wanted_version: Option<&str>,
        progress: &dyn Fn(Progress),
    ) -> Result<Package, Error> {
        let wanted = match wanted_version {
            Some(text) => Some(Version::parse(text).ok_or_else(|| Error::Version(text.to_owned()))?),
            None => None,
        };
        if wanted.is_some()
            && let Some(package) = self.cached(arch, wanted_version)
        {
            return Ok(package);
        }
        let (download, name) = choose(github.runner_downloads(scope)?, arch, wanted)?;
        if let Some(package) = self.look(&name)
            && download.sha256.as_ref().is_none_or(|sum| *sum == package.sha256)
        {
            return Ok(package);
        }
        fs::create_dir_all(&self.dir).map_err(|error| Error::io("make the directory", &self.dir, error))?;
        let package = fetch::fetch(self, github, &download, &name, progress)?;
        self.prune(arch, &name);
        Ok(package)
    }

    /// The newest cached package, or that of `wanted_version`.
    pub fn cached(&self, arch: RunnerArch, wanted_version: Option<&str>) -> Option<Package> {
        let names = self.names(arch);
        let wanted = |name: &&Name| wanted_version.is_none_or(|wanted| name.version.text() == wanted);
        names.iter().filter(wanted).find_map(|name| self.look(name))
    }

    /// The package of this name, if it is cached and verified.
    fn look(&self, name: &Name) -> Option<Package> {
        let path = self.dir.join(name.file());
        // The daemon's user cannot read one that root downloaded under a strict umask.
        let about = File::open(&path)
            .and_then(|file| file.metadata())
            .ok()
            .filter(|about| about.is_file() && about.len() > 0)?;
        let note = fs::read_to_string(self.dir.join(format!("{}.sha256", name.file()))).ok()?;
        let sha256 = note.split_whitespace().next().filter(|sum| sum.len() == 64)?.to_owned();
        Some(Package { path, version: name.version.text().to_owned(), size: about.len(), sha256 })
    }

    /// The names of the cached packages, newest first.
    fn names(&self, arch: RunnerArch) -> Vec<Name> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let own = |entry: fs::DirEntry| Name::parse(entry.file_name().to_str()?, arch);
        let mut names: Vec<Name> = entries.flatten().filter_map(own).collect();
        names.sort_by(|a, b| b.version.cmp(&a.version));
        names
    }

    /// Removes all but `current` and the newest others, and unfinished downloads. A file that cannot be removed is tried again
    /// after the next download.
    fn prune(&self, arch: RunnerArch, current: &Name) {
        let others = self.names(arch).into_iter().filter(|name| name != current);
        for old in others.skip(KEPT - 1) {
            let removed = fs::remove_file(self.dir.join(old.file()));
            log::info!("package_removed file={} removed={}", old.file(), removed.is_ok());
            drop(fs::remove_file(self.dir.join(format!("{}.sha256", old.file()))));
        }
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let file = entry.file_name();
            let unfinished = file.to_str().and_then(|file| file.strip_suffix(fetch::PART));
            let Some(name) = unfinished.and_then(|file| Name::parse(file, arch)) else { continue };
            if name != *current {
                fetch::remove_unfinished(&self.dir, &name);
            }
        }
    }
}

/// When GitHub stops accepting `version`, if it tells. A failure of this question does not matter.
pub fn life_of(github: &GitHub, scope: &Scope, arch: RunnerArch, version: &str) -> RunnerLife {
    let end = github.runner_end(scope, version).unwrap_or_else(|error| {
        log::debug!("version={version} msg=\"its end is not known\" error=\"{error}\"");
        None
    });
    let newest = newest(&github.runner_downloads(scope).unwrap_or_default(), arch);
    let is_newer = |newest: &String| Version::parse(newest) > Version::parse(version);
    RunnerLife { end, newer: newest.filter(is_newer) }
}

/// The newest version offered.
pub fn newest(offers: &[Download], arch: RunnerArch) -> Option<String> {
    let linux = offers.iter().filter(|offer| offer.os == "linux");
    let named = linux.filter_map(|offer| Name::parse(&offer.filename, arch));
    named.map(|name| name.version).max().map(|version| version.text().to_owned())
}

/// The download, and the name to keep it under.
fn choose(offers: Vec<Download>, arch: RunnerArch, wanted: Option<Version>) -> Result<(Download, Name), Error> {
    let named = |offer: Download| match offer.os == "linux" && offer.architecture == arch.as_str() {
        true => Name::parse(&offer.filename, arch).map(|name| (offer, name)),
        false => None,
    };
    let offered: Vec<String> = offers.iter().map(|offer| offer.filename.clone()).collect();
    let newest = offers.into_iter().filter_map(named).max_by(|a, b| a.1.version.cmp(&b.1.version));
    let Some((download, name)) = newest else { return Err(Error::NotOffered { arch, offered }) };
    let Some(wanted) = wanted.filter(|wanted| *wanted != name.version) else { return Ok((download, name)) };
    if !download.url.contains(name.version.text()) {
        return Err(Error::NoPattern { url: download.url, wanted: wanted.text().to_owned() });
    }
    log::info!(
        "package_pinned version={} newest={} note=\"GitHub tells no checksum of versions but the newest\"",
        wanted.text(),
        name.version.text()
    );
    let url = download.url.replace(name.version.text(), wanted.text());
    let name = Name { arch, version: wanted };
    Ok((Download { url, filename: name.file(), sha256: None, ..download }, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(arch: &str, version: &str) -> Download {
        let filename = format!("actions-runner-linux-{arch}-{version}.tar.gz");
        let url = format!("https://x.example/v{version}/{filename}");
        Download { os: "linux".into(), architecture: arch.into(), url, filename, sha256: Some("s".into()), token: None }
    }

    #[test]
    fn the_newest_is_chosen_and_a_pinned_one_is_made_after_its_pattern() {
        let offers = || vec![offer("arm64", "2.9.0"), offer("x64", "2.9.0"), offer("x64", "2.10.0")];
        let wanted = |text: &str| Version::parse(text);
        let (newest, _) = choose(offers(), RunnerArch::X64, None).unwrap();
        assert_eq!(newest, offer("x64", "2.10.0"));
        assert_eq!(choose(offers(), RunnerArch::X64, wanted("2.10.0")).unwrap().0, newest);
        let (pinned, name) = choose(offers(), RunnerArch::X64, wanted("2.8.1")).unwrap();
        assert_eq!(pinned, Download { sha256: None, ..offer("x64", "2.8.1") });
        assert_eq!(name.file(), pinned.filename);
        assert!(matches!(choose(offers(), RunnerArch::Arm, None), Err(Error::NotOffered { .. })));
        let hidden = Download { url: "https://x.example/latest".into(), ..offer("x64", "2.9.0") };
        let error = choose(vec![hidden], RunnerArch::X64, wanted("2.8.1")).unwrap_err();
        assert!(matches!(error, Error::NoPattern { .. }));
    }
}
