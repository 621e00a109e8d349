//! The cache of runner packages against the GitHub stand-in: what is downloaded, trusted, resumed, kept and refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use lxdrunner::github::{ErrorKind, GitHub};
use lxdrunner::model::{RunnerArch, Scope, Secret};
use lxdrunner::runner::package::{Error, Package, Packages};
use standin::github::{Fault, GitHubStandin, Mischief};
use standin::package::{self, BuiltPackage, PackageSpec, Padding};

/// A stand-in that offers a package, and a cache that is empty yet.
struct House {
    root: PathBuf,
    standin: GitHubStandin,
    github: GitHub,
    packages: Packages,
    org: Scope,
}

impl House {
    fn new(name: &str) -> House {
        let root = std::env::temp_dir().join(format!("lxdrunner-cache-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&root));
        fs::create_dir_all(root.join("offered")).unwrap();
        let standin = GitHubStandin::start((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        standin.add_org("acme");
        let github = GitHub::new(&standin.api(), standin.token());
        let packages = Packages::new(&root.join("cache"));
        House { root, standin, github, packages, org: "org:acme".parse().unwrap() }
    }

    /// Offers a version, of 300 kB packed.
    fn offer(&self, version: &str) -> BuiltPackage {
        let padding = Some(Padding { files: 10, bytes: 900_000 });
        let spec = PackageSpec { version: version.to_owned(), arch: "x64".to_owned(), padding };
        let built = package::build_as(&self.root.join("offered"), &spec).unwrap();
        self.standin.offer(&built.path, "x64", Some(built.sha256.clone())).unwrap();
        built
    }

    fn ensure(&self, version: Option<&str>) -> Result<Package, Error> {
        self.packages.ensure(&self.github, &self.org, RunnerArch::X64, version)
    }

    /// The names in the cache, in order.
    fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.cache()) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// The ranges that the downloads so far asked for.
    fn ranges(&self) -> Vec<Option<String>> {
        let requests = self.standin.requests();
        let downloads = requests.iter().filter(|request| request.path.starts_with("/_download/"));
        downloads.map(|request| request.header("range").map(str::to_owned)).collect()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.root));
    }
}

fn same(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}

const V1: &str = "actions-runner-linux-x64-2.1.0.tar.gz";
const CUT: u64 = 100_000;

#[test]
fn a_package_is_downloaded_once_and_found_again() {
    let house = House::new("once");
    let built = house.offer("2.1.0");
    assert_eq!(house.packages.cached(RunnerArch::X64, None), None);
    let seen = Mutex::new(Vec::new());
    let note = |progress| seen.lock().unwrap().push(progress);
    let package = house.packages.ensure_and_tell(&house.github, &house.org, RunnerArch::X64, None, &note).unwrap();
    assert_eq!((package.version.as_str(), package.size), ("2.1.0", built.size));
    assert_eq!(package.sha256, built.sha256);
    assert!(same(&package.path, &built.path));
    assert_eq!(house.files(), [V1.to_owned(), format!("{V1}.sha256")]);
    let last = *seen.lock().unwrap().last().unwrap();
    assert_eq!((last.done, last.total), (built.size, Some(built.size)));
    assert_eq!(house.ensure(None).unwrap(), package);
    assert_eq!(house.ranges().len(), 1, "downloaded once");
    let after_restart = Packages::new(&house.cache());
    assert_eq!(after_restart.cached(RunnerArch::X64, None), Some(package.clone()));
    assert_eq!(after_restart.cached(RunnerArch::X64, Some("2.1.0")), Some(package));
    assert_eq!(after_restart.cached(RunnerArch::X64, Some("2.0.0")), None);
    assert_eq!(after_restart.cached(RunnerArch::Arm64, None), None);
    let mut check = std::process::Command::new("sha256sum");
    check.arg("-c").arg(format!("{V1}.sha256")).current_dir(house.cache());
    assert!(check.output().unwrap().status.success());
}

#[test]
fn the_credential_does_not_go_with_the_download() {
    let house = House::new("credential");
    house.offer("2.1.0");
    house.ensure(None).unwrap();
    let requests = house.standin.requests();
    let download = requests.iter().find(|request| request.path.starts_with("/_download/")).unwrap();
    assert_eq!(download.header("authorization"), None);
    assert_eq!(download.header("accept-encoding"), None);
}

#[test]
fn a_cut_download_goes_on_where_it_was() {
    let house = House::new("cut");
    let built = house.offer("2.1.0");
    house.standin.inject(Fault::on("/_download/", Mischief::CutAfter(CUT)).times(2));
    let package = house.ensure(None).unwrap();
    assert!(same(&package.path, &built.path));
    assert_eq!(house.ranges(), [None, Some(format!("bytes={CUT}-")), Some(format!("bytes={}-", 2 * CUT))]);
}

/// Leaves a part of `CUT` bytes, as a process that was killed does.
fn cut_for_good(house: &House) {
    house.standin.inject(Fault::on("/_download/", Mischief::CutAfter(CUT)));
    house.standin.inject(Fault::on("/_download/", Mischief::CutAfter(0)));
    let error = house.ensure(None).unwrap_err();
    assert!(matches!(error, Error::Cut { done: CUT, .. }), "{error}");
    assert_eq!(fs::metadata(house.cache().join(format!("{V1}.part"))).unwrap().len(), CUT);
    assert_eq!(house.packages.cached(RunnerArch::X64, None), None, "half a package is none");
}

#[test]
fn the_next_process_resumes_what_the_last_one_left() {
    let house = House::new("resume");
    let built = house.offer("2.1.0");
    cut_for_good(&house);
    let package = house.ensure(None).unwrap();
    assert!(same(&package.path, &built.path));
    assert_eq!(house.ranges().last().unwrap().as_deref(), Some(format!("bytes={CUT}-").as_str()));
    assert_eq!(house.files(), [V1.to_owned(), format!("{V1}.sha256")]);
}

#[test]
fn another_body_is_not_mixed_with_what_is_here() {
    let house = House::new("changed");
    house.offer("2.1.0");
    cut_for_good(&house);
    // The same name, another body, and no checksum that would tell.
    let padding = Some(Padding { files: 10, bytes: 800_000 });
    let spec = PackageSpec { version: "2.1.0".to_owned(), arch: "x64".to_owned(), padding };
    let other = package::build_as(&house.root.join("offered"), &spec).unwrap();
    house.standin.offer(&other.path, "x64", Some(other.sha256.clone())).unwrap();
    house.standin.with(|state| state.offers[0].sha256 = None);
    assert_eq!(house.ensure(None).unwrap().sha256, other.sha256);
}

#[test]
fn a_damaged_part_is_dropped_and_downloaded_whole() {
    let house = House::new("damaged-part");
    house.offer("2.1.0");
    cut_for_good(&house);
    let part = house.cache().join(format!("{V1}.part"));
    let mut bytes = fs::read(&part).unwrap();
    bytes[7777] ^= 1;
    fs::write(&part, bytes).unwrap();
    let package = house.ensure(None).unwrap();
    assert!(same(&package.path, &house.root.join("offered").join(V1)));
    assert_eq!(house.ranges().last().unwrap(), &None, "from the start");
}

#[test]
fn a_wrong_checksum_is_told_with_both_and_nothing_is_kept() {
    let house = House::new("checksum");
    let built = house.offer("2.1.0");
    let wrong = "0".repeat(64);
    house.standin.with(|state| state.offers[0].sha256 = Some(wrong.clone()));
    let error = house.ensure(None).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&wrong) && text.contains(&built.sha256) && text.contains(V1), "{text}");
    assert_eq!(house.files(), [""; 0]);
    assert_eq!(house.ranges().len(), 1, "it is not hammered");
    house.standin.with(|state| state.offers[0].sha256 = Some(built.sha256.to_uppercase()));
    assert_eq!(house.ensure(None).unwrap().sha256, built.sha256);
}

#[test]
fn a_version_whose_checksum_changed_is_downloaded_again() {
    let house = House::new("changed-sum");
    let built = house.offer("2.1.0");
    let path = house.ensure(None).unwrap().path;
    fs::write(&path, "tampered").unwrap();
    fs::write(house.cache().join(format!("{V1}.sha256")), format!("{}  {V1}\n", "1".repeat(64))).unwrap();
    assert!(same(&house.ensure(None).unwrap().path, &built.path));
}

#[test]
fn without_a_checksum_the_length_must_do() {
    let house = House::new("no-sum");
    let built = house.offer("2.1.0");
    house.standin.with(|state| state.offers[0].sha256 = None);
    assert_eq!(house.ensure(None).unwrap().sha256, built.sha256);
}

#[test]
fn a_pinned_version_comes_after_the_newest_ones_pattern() {
    let house = House::new("pinned");
    house.offer("2.2.0");
    let padding = Some(Padding { files: 10, bytes: 900_000 });
    let spec = PackageSpec { version: "2.1.0".to_owned(), arch: "x64".to_owned(), padding };
    let old = package::build_as(&house.root.join("offered"), &spec).unwrap();
    // It can be downloaded, but is not listed.
    house.standin.with(|state| {
        let mut offer = state.offers[0].clone();
        (offer.path, offer.filename, offer.size) = (old.path.clone(), V1.to_owned(), old.size);
        (offer.etag, offer.architecture) = ("\"old\"".to_owned(), "none".to_owned());
        state.offers.push(offer);
    });
    let package = house.ensure(Some("2.1.0")).unwrap();
    assert_eq!((package.version.as_str(), package.sha256), ("2.1.0", old.sha256));
    let asked = house.standin.requests().len();
    house.ensure(Some("2.1.0")).unwrap();
    assert_eq!(house.standin.requests().len(), asked, "what is here needs no GitHub");
    let error = house.ensure(Some("1.0.0")).unwrap_err();
    assert!(matches!(&error, Error::GitHub(error) if error.kind == ErrorKind::NotFound), "{error}");
    for wrong in ["../../etc", "2", "v2.1.0", "latest"] {
        assert!(matches!(house.ensure(Some(wrong)), Err(Error::Version(_))), "{wrong}");
    }
}

#[test]
fn the_two_newest_are_kept() {
    let house = House::new("pruned");
    for version in ["2.9.0", "2.10.0"] {
        house.offer(version);
        house.ensure(None).unwrap();
    }
    let stale = "actions-runner-linux-x64-2.8.0.tar.gz.part";
    fs::write(house.cache().join(stale), "half").unwrap();
    fs::write(house.cache().join("actions-runner-linux-arm64-2.8.0.tar.gz.part"), "half").unwrap();
    fs::write(house.cache().join("somebody-elses"), "x").unwrap();
    house.offer("2.11.0");
    house.ensure(None).unwrap();
    let kept = house.files();
    assert!(!kept.iter().any(|name| name.contains("2.9.0") || name == stale), "{kept:?}");
    assert_eq!(kept.iter().filter(|name| name.ends_with(".tar.gz")).count(), 2, "{kept:?}");
    assert!(kept.contains(&"somebody-elses".to_owned()) && kept.iter().any(|name| name.contains("arm64")));
    assert_eq!(house.packages.cached(RunnerArch::X64, None).unwrap().version, "2.11.0");
}

#[test]
fn names_that_lead_elsewhere_are_not_followed() {
    let house = House::new("traversal");
    house.offer("2.1.0");
    for name in ["../../evil-x64-2.1.0.tar.gz", "actions-runner-linux-x64-../../../2.1.0.tar.gz", "/etc/passwd", ""] {
        house.standin.with(|state| state.offers[0].filename = name.to_owned());
        let error = house.ensure(None).unwrap_err();
        assert!(matches!(error, Error::NotOffered { .. }), "{name}: {error}");
    }
    assert!(!house.cache().exists());
}

#[test]
fn a_github_that_fails_is_told_and_the_cache_serves() {
    let house = House::new("offline");
    house.offer("2.1.0");
    let package = house.ensure(None).unwrap();
    house.standin.inject(Fault::status("/orgs/acme/actions/runners/downloads", 500, "oops"));
    let error = house.ensure(None).unwrap_err();
    assert!(matches!(&error, Error::GitHub(error) if error.kind == ErrorKind::Server(500)), "{error}");
    assert_eq!(house.packages.cached(RunnerArch::X64, None), Some(package));
    let stranger = GitHub::new(&house.standin.api(), Secret::new("wrong"));
    let error = house.packages.ensure(&stranger, &house.org, RunnerArch::X64, None).unwrap_err();
    assert!(matches!(&error, Error::GitHub(error) if error.kind == ErrorKind::Unauthorized), "{error}");
}

#[test]
fn a_page_in_place_of_the_package_is_told() {
    let house = House::new("html");
    house.offer("2.1.0");
    house.standin.inject(Fault::html("/_download/", 200));
    assert!(matches!(house.ensure(None), Err(Error::NotAPackage { .. })));
    assert_eq!(house.files(), [""; 0]);
    house.standin.inject(Fault::html("/_download/", 503));
    assert!(matches!(house.ensure(None), Err(Error::GitHub(error)) if error.kind == ErrorKind::Server(503)));
    house.ensure(None).unwrap();
}

#[test]
fn a_directory_that_cannot_be_is_told() {
    let house = House::new("no-directory");
    house.offer("2.1.0");
    let file = house.root.join("a-file");
    fs::write(&file, "").unwrap();
    let packages = Packages::new(&file.join("cache"));
    let error = packages.ensure(&house.github, &house.org, RunnerArch::X64, None).unwrap_err();
    assert!(error.to_string().contains("cache_home"), "{error}");
}

#[test]
fn two_at_once_download_once() {
    let house = House::new("two");
    let built = house.offer("2.1.0");
    let ensure = || {
        let packages = Packages::new(&house.cache());
        packages.ensure(&house.github, &house.org, RunnerArch::X64, None).unwrap()
    };
    let found = std::thread::scope(|scope| {
        let both = [scope.spawn(ensure), scope.spawn(ensure)];
        both.map(|thread| thread.join().unwrap())
    });
    assert_eq!(found[0], found[1]);
    assert!(same(&found[0].path, &built.path));
    assert_eq!(house.ranges().len(), 1);
    assert_eq!(house.files(), [V1.to_owned(), format!("{V1}.sha256")]);
}
