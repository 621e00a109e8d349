//! Asks an image server for its images, because LXD and Incus can only fetch one. The format is simplestreams: an index of
//! product lists; a product has aliases, an architecture, and in each version the files of an instance's root
//! (`shared/simplestreams` in LXD's and Incus' sources).

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::Origin;
use crate::model::{InstanceType, Product, RunnerArch};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest list that is read, in bytes, after unpacking; Ubuntu's is the longest known, some 10 MB.
const MAX_LIST: u64 = 64 << 20;
/// Lists of one server that are read.
const MOST_LISTS: usize = 8;

/// What instances are to be made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub product: Product,
    pub kind: InstanceType,
    pub arch: RunnerArch,
}

/// Whether the server has an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Yes,
    /// Nothing of this name.
    NoAlias,
    /// The server has it for these other processors only.
    OtherArch(Vec<String>),
    /// No file that the product can use.
    OtherProduct,
    /// Containers only, or virtual machines only.
    OtherType,
}

/// The answers of image servers; each is asked once.
#[derive(Default)]
pub(super) struct ImageServers {
    asked: BTreeMap<String, Result<Vec<Listed>, String>>,
}

impl ImageServers {
    /// `Err` says why the server could not be asked.
    pub(super) fn has(&mut self, origin: &Origin, wanted: Wanted) -> Result<Found, &str> {
        let server = origin.server.trim_end_matches('/');
        let listed = self.asked.entry(server.to_owned()).or_insert_with(|| list(server));
        match listed {
            Ok(listed) => Ok(look_up(listed, &origin.alias, wanted)),
            Err(error) => Err(error),
        }
    }
}

#[derive(Deserialize)]
struct IndexJson {
    index: BTreeMap<String, IndexEntryJson>,
}

#[derive(Deserialize)]
struct IndexEntryJson {
    #[serde(default)]
    datatype: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    products: Vec<String>,
}

#[derive(Deserialize)]
struct ListJson {
    products: BTreeMap<String, Listed>,
}

/// An image of an image server, all its versions together.
#[derive(Debug, Default, Deserialize)]
struct Listed {
    #[serde(default)]
    aliases: String,
    #[serde(default)]
    arch: String,
    #[serde(default)]
    versions: BTreeMap<String, Version>,
}

#[derive(Debug, Default, Deserialize)]
struct Version {
    #[serde(default)]
    items: BTreeMap<String, ListedFile>,
}

#[derive(Debug, Default, Deserialize)]
struct ListedFile {
    #[serde(default)]
    ftype: String,
}

fn list(server: &str) -> Result<Vec<Listed>, String> {
    let index: IndexJson = fetch(server, "streams/v1/index.json")?;
    let lists = index.index.into_values().filter(|one| one.datatype == "image-downloads" && !one.products.is_empty());
    let mut listed = Vec::new();
    for entry in lists.take(MOST_LISTS) {
        let list: ListJson = fetch(server, entry.path.trim_start_matches('/'))?;
        listed.extend(list.products.into_values());
    }
    Ok(listed)
}

fn fetch<T: DeserializeOwned>(server: &str, path: &str) -> Result<T, String> {
    let local = server.starts_with("http://");
    let config = ureq::Agent::config_builder()
        .https_only(!local)
        .user_agent(concat!("lxdrunner/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(CALL_TIMEOUT));
    // A mirror on this machine is the only one that may go without TLS.
    let config = if local { config.proxy(None) } else { config };
    let url = format!("{server}/{path}");
    let response = config.build().new_agent().get(&url).call().map_err(|error| format!("GET {url:?}: {error}"))?;
    let body = BufReader::new(response.into_body().into_reader().take(MAX_LIST));
    serde_json::from_reader(body).map_err(|error| format!("GET {url:?}: not a simplestreams list: {error}"))
}

/// The server's words for a processor, Debian's or the kernel's.
fn arch_names(arch: RunnerArch) -> &'static [&'static str] {
    match arch {
        RunnerArch::X64 => &["amd64", "x86_64"],
        RunnerArch::Arm64 => &["arm64", "aarch64"],
        RunnerArch::Arm => &["armhf", "armel", "armv7l", "armv8l"],
    }
}

fn look_up(listed: &[Listed], alias: &str, wanted: Wanted) -> Found {
    let named: Vec<&Listed> = listed.iter().filter(|one| one.is_named(alias)).collect();
    if named.is_empty() {
        return Found::NoAlias;
    }
    let arch: Vec<&&Listed> = named.iter().filter(|one| arch_names(wanted.arch).contains(&one.arch.as_str())).collect();
    if arch.is_empty() {
        let mut others: Vec<String> = named.iter().map(|one| one.arch.clone()).collect();
        others.sort();
        others.dedup();
        return Found::OtherArch(others);
    }
    let kinds: Vec<InstanceType> = arch.iter().flat_map(|one| one.kinds(wanted.product)).collect();
    match kinds.contains(&wanted.kind) {
        true => Found::Yes,
        false if kinds.is_empty() => Found::OtherProduct,
        false => Found::OtherType,
    }
}

impl Listed {
    /// `ALIAS`, or `ALIAS/ARCHITECTURE`.
    fn is_named(&self, alias: &str) -> bool {
        let short = alias.strip_suffix(&self.arch).and_then(|rest| rest.strip_suffix('/'));
        self.aliases.split(',').any(|one| one == alias || Some(one) == short)
    }

    /// What instances `product` can make of it.
    fn kinds(&self, product: Product) -> Vec<InstanceType> {
        let (separate, combined) = match product {
            Product::Lxd => ("lxd.tar.xz", "lxd_combined.tar.gz"),
            Product::Incus => ("incus.tar.xz", "incus_combined.tar.gz"),
        };
        let mut kinds = Vec::new();
        for version in self.versions.values() {
            let has = |ftype: &str| version.items.values().any(|file| file.ftype == ftype);
            let root = |ftypes: &[&str]| has(separate) && ftypes.iter().any(|ftype| has(ftype));
            if has(combined) || root(&["squashfs", "root.tar.xz"]) {
                kinds.push(InstanceType::Container);
            }
            if root(&["disk-kvm.img", "disk1.img", "uefi1.img"]) {
                kinds.push(InstanceType::VirtualMachine);
            }
        }
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(aliases: &str, arch: &str, ftypes: &[&str]) -> Listed {
        let file = |ftype: &&str| ((*ftype).to_owned(), ListedFile { ftype: (*ftype).to_owned() });
        let version = Version { items: ftypes.iter().map(file).collect() };
        let versions = [("20261101".to_owned(), version)].into();
        Listed { aliases: aliases.to_owned(), arch: arch.to_owned(), versions }
    }

    #[test]
    fn an_image_must_be_there_for_the_product_the_type_and_the_processor() {
        let all = [
            listed("24.04,noble,lts", "amd64", &["lxd.tar.xz", "squashfs", "disk1.img"]),
            listed("24.04,noble,lts", "arm64", &["lxd.tar.xz", "squashfs"]),
            listed("debian/12/cloud", "amd64", &["lxd.tar.xz", "incus.tar.xz", "squashfs"]),
            listed("old", "amd64", &["lxd_combined.tar.gz"]),
            listed("broken", "amd64", &["lxd.tar.xz"]),
        ];
        let (lxd, incus) = (Product::Lxd, Product::Incus);
        let (container, vm) = (InstanceType::Container, InstanceType::VirtualMachine);
        let (x64, arm64) = (RunnerArch::X64, RunnerArch::Arm64);
        #[track_caller]
        fn check(all: &[Listed], alias: &str, wanted: (Product, InstanceType, RunnerArch), found: Found) {
            let (product, kind, arch) = wanted;
            assert_eq!(look_up(all, alias, Wanted { product, kind, arch }), found, "{alias}");
        }
        check(&all, "24.04", (lxd, container, x64), Found::Yes);
        check(&all, "noble", (lxd, vm, x64), Found::Yes);
        check(&all, "lts/amd64", (lxd, container, x64), Found::Yes);
        check(&all, "24.04", (incus, container, x64), Found::OtherProduct);
        check(&all, "24.04", (lxd, vm, arm64), Found::OtherType);
        check(&all, "24.04", (lxd, container, RunnerArch::Arm), {
            Found::OtherArch(vec!["amd64".to_owned(), "arm64".to_owned()])
        });
        check(&all, "24.4", (lxd, container, x64), Found::NoAlias);
        check(&all, "lts/arm64", (lxd, container, x64), Found::OtherArch(vec!["arm64".to_owned()]));
        check(&all, "debian/12/cloud", (incus, container, x64), Found::Yes);
        check(&all, "debian/12/cloud", (incus, vm, x64), Found::OtherType);
        check(&all, "old", (lxd, container, x64), Found::Yes);
        check(&all, "broken", (lxd, container, x64), Found::OtherProduct);
    }
}
