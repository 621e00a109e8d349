//! What LXD is asked: whether it answers, and whether what the classes need is there.

use std::collections::BTreeMap;

use super::images::{Found, ImageServers, Wanted};
use super::{Findings, forbidden};
use crate::config::{Class, Config, NESTING, Origin};
use crate::lxd::{Image, Lxd, Profile, Project, Server};
use crate::model::{ConfigMap, Devices, InstanceType, RunnerArch};
use crate::runner::provision::is_fingerprint;
use crate::world::{TemplateKind, template_kind};

const GIB: u64 = 1024 * 1024 * 1024;
/// A runner takes about 600 MB unpacked, and a job some more.
const LEAST_SPACE: u64 = GIB;
const SOME_SPACE: u64 = 5 * GIB;

pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    let lxd = Lxd::new(&config.socket);
    let Some(server) = server(&lxd, findings) else { return };
    let mut asked = Asked { lxd: &lxd, server: &server, pools: BTreeMap::new(), servers: ImageServers::default() };
    for class in &config.classes {
        asked.class(class, findings);
    }
    findings.about(String::new());
    if config.classes.iter().any(|class| class.kind == InstanceType::Container)
        && let Some(warning) = watchers(config.max_workers, &std::fs::read_to_string(INOTIFY).unwrap_or_default())
    {
        findings.warn(warning);
    }
}

/// What the kernel lets one user have of inotify(7); the roots of all unprivileged containers are one user to it.
const INOTIFY: &str = "/proc/sys/fs/inotify/max_user_instances";
/// How many a systemd with its usual services takes. Where it gets none, its network does not come up.
const INOTIFY_EACH: u64 = 14;

/// Containers that are too many for the kernel's usual limit, which few hosts raise.
fn watchers(max_workers: usize, limit: &str) -> Option<String> {
    let limit: u64 = limit.trim().parse().ok()?;
    let wanted = INOTIFY_EACH.saturating_mul(u64::try_from(max_workers).unwrap_or(u64::MAX));
    (limit < wanted).then(|| {
        format!(
            "fs.inotify.max_user_instances is {limit}: enough for some {} containers with systemd, not for max_workers \
             {max_workers}; those beyond come up without a network. In /etc/sysctl.d/60-lxdrunner.conf: \
             fs.inotify.max_user_instances = 8192 and kernel.keys.maxkeys = 2000, then sysctl --system",
            limit / INOTIFY_EACH
        )
    })
}

fn server(lxd: &Lxd, findings: &mut Findings<'_>) -> Option<Server> {
    let (socket, product) = (lxd.socket().display(), lxd.product());
    match lxd.server() {
        Err(error) => {
            findings.fail(format!("{product} at {socket}: {error}"), "the classes cannot be checked before it answers");
            None
        }
        Ok(server) if !server.trusted => {
            let group = product.group();
            let fix = format!("run lxdrunner as root, or as a user of the socket's group: usermod -aG {group} USER");
            findings.fail(format!("{product} at {socket} answers, but does not trust this user"), fix);
            None
        }
        Ok(server) => {
            let cluster = if server.clustered { ", a cluster" } else { "" };
            findings.ok(format!("{product} {} at {socket}{cluster}", server.version));
            Some(server)
        }
    }
}

/// Whether jobs with `container:` or `services:` can run, as far as it is seen from outside.
fn docker(class: &Class, of_profiles: &ConfigMap, findings: &mut Findings<'_>) {
    let nesting = class.config.get(NESTING).or(of_profiles.get(NESTING)).is_some_and(|text| text == "true");
    let told = match class.kind {
        _ if class.inside.docker => "docker: installed while its template is baked".to_owned(),
        InstanceType::Container if !nesting => {
            format!(
                "no Docker: jobs with `container:` or `services:` fail ({NESTING} is off); docker: true sets it all up"
            )
        }
        _ => "Docker only where the image has it; docker: true installs it".to_owned(),
    };
    findings.ok(told);
}

struct Asked<'a> {
    lxd: &'a Lxd,
    server: &'a Server,
    /// Pools that were reported already, by name: true where nothing is wrong.
    pools: BTreeMap<String, bool>,
    servers: ImageServers,
}

impl Asked<'_> {
    fn class(&mut self, class: &Class, findings: &mut Findings<'_>) {
        findings.about(format!("class {:?}: ", class.name));
        self.machine(class, findings);
        let Some(project) = self.project(class, findings) else { return };
        let image = self.image(class, findings);
        let Some(Profile { mut config, mut devices }) = self.profiles(class, findings) else { return };
        docker(class, &config, findings);
        config.extend(class.config.clone());
        forbidden::by_project(class, &config, &project, findings);
        if let Some(image) = image {
            forbidden::by_image(class, &config, &image, findings);
        }
        // The instance's own devices come last and replace those of the same name.
        devices.extend(class.devices.clone());
        self.disk(class, &devices, findings);
        self.network(class, &devices, findings);
    }

    /// Processor, virtualisation, and where in a cluster.
    fn machine(&self, class: &Class, findings: &mut Findings<'_>) {
        let wanted = lxd_arch(class.arch);
        let known = &self.server.architectures;
        if !known.is_empty() && !known.iter().any(|a| wanted.contains(&a.as_str())) {
            let what =
                format!("runner_arch is {}, but {} here runs {}", class.arch, self.server.product, known.join(", "));
            if self.server.clustered {
                findings.warn(format!("{what}; other members of the cluster may run it"));
            } else {
                findings.fail(what, "change runner_arch");
            }
        }
        if class.kind == InstanceType::VirtualMachine {
            self.virtual_machines(findings);
        }
        if class.target.is_empty() {
            return;
        }
        if !self.server.clustered {
            findings.fail(
                format!("target {:?}, but {} is not a cluster", class.target, self.server.product),
                "leave target out",
            );
        } else if !class.target.starts_with('@') {
            match self.lxd.cluster_members() {
                Ok(members) if members.contains(&class.target) => {}
                Ok(members) => {
                    let fix = format!("members are {}", members.join(", "));
                    findings.fail(format!("the cluster has no member {:?}", class.target), fix);
                }
                Err(error) => findings.warn(error),
            }
        }
    }

    fn virtual_machines(&self, findings: &mut Findings<'_>) {
        let (product, client) = (self.server.product, self.server.product.client());
        match self.server.virtual_machines {
            Some(false) if self.server.clustered => findings.warn(format!(
                "{product} runs no virtual machines on the member that answers; others of the cluster may"
            )),
            Some(false) => {
                let fix = format!(
                    "{product} needs /dev/kvm and QEMU with firmware (Debian: apt install qemu-system-x86 ovmf qemu-utils gdisk {}); \
                     then restart it, and {client} info says driver: lxc | qemu",
                    product.agent()
                );
                findings.fail(format!("{product} here runs no virtual machines ({client} info: driver)"), fix);
            }
            _ if !std::path::Path::new("/dev/kvm").exists() => {
                findings.warn("no /dev/kvm here; virtual machines need hardware virtualisation");
            }
            _ => {}
        }
    }

    /// The class's project; `None` where there is none.
    fn project(&self, class: &Class, findings: &mut Findings<'_>) -> Option<Project> {
        let found = self.lxd.projects().map(|all| all.into_iter().find(|one| one.name == class.project));
        match found {
            Ok(Some(project)) => Some(project),
            Ok(None) => {
                let Server { product, .. } = self.server;
                let fix = format!("make it: {} project create {}", product.client(), class.project);
                findings.fail(format!("{product} has no project {:?}", class.project), fix);
                None
            }
            Err(error) => {
                findings.warn(error);
                Some(Project { name: class.project.clone(), config: ConfigMap::new() })
            }
        }
    }

    /// The class's image, where it is on the server.
    fn image(&mut self, class: &Class, findings: &mut Findings<'_>) -> Option<Image> {
        let product = self.server.product;
        if let Some(origin) = class.image.origin(product) {
            let Origin { server, alias, .. } = &origin;
            let fits = |one: &Image| one.comes_from(server, alias) && one.kind == class.kind.as_str();
            let here = self.lxd.images(&class.project).unwrap_or_default().into_iter().find(fits);
            match &here {
                Some(one) => {
                    let (image, short) = (&class.image, one.fingerprint.get(..12).unwrap_or(&one.fingerprint));
                    findings.ok(format!("image {image} ({short}, {}) was fetched from {server}", one.kind));
                }
                None => self.image_server(class, &origin, findings),
            }
            return here;
        }
        let alias = &class.image.to_string();
        let fingerprint = self.lxd.image_alias(&class.project, alias).map(|found| found.unwrap_or(alias.clone()));
        let found = fingerprint.and_then(|fingerprint| self.lxd.image(&class.project, &fingerprint));
        let fix = format!("see {} image list, or write REMOTE:ALIAS, such as ubuntu:24.04", product.client());
        let image = findings.found(found, format!("{product} has no image {alias:?}"), fix)?;
        let short = image.fingerprint.get(..12).unwrap_or(&image.fingerprint);
        let what = format!("image {alias} ({short}, {}, {})", image.kind, image.architecture);
        if !image.kind.is_empty() && image.kind != class.kind.as_str() {
            findings.fail(what, format!("the class's type is {}: use an image of that type", class.kind.as_str()));
        } else if !image.architecture.is_empty() && !lxd_arch(class.arch).contains(&image.architecture.as_str()) {
            findings.fail(what, format!("the class's runner_arch is {}: use an image of that", class.arch));
        } else {
            findings.ok(what);
        }
        Some(image)
    }

    /// Whether an image server has the class's image.
    fn image_server(&mut self, class: &Class, origin: &Origin, findings: &mut Findings<'_>) {
        let (product, image) = (self.server.product, &class.image);
        let Origin { server, protocol, alias } = origin;
        if let Some(told) = origin.of_other_product(product) {
            return findings.fail_as_told(format!("image {image}: {told}"));
        }
        let list = origin.list_command(product);
        if protocol != "simplestreams" || is_fingerprint(alias) {
            let reason = "only simplestreams servers are asked, and only for aliases";
            return findings.warn(format!("image {image}: {server} was not asked for it ({reason}): {list}"));
        }
        let wanted = Wanted { product, kind: class.kind, arch: class.arch };
        let (what, kind) = (format!("image {image}: {server}"), class.kind.as_str());
        match self.servers.has(origin, wanted) {
            Ok(Found::Yes) => findings.ok(format!("{what} has {alias} for {product}, {kind}, {}", class.arch)),
            Ok(Found::NoAlias) => findings.fail(format!("{what} has no {alias:?}"), format!("see what it has: {list}")),
            Ok(Found::OtherArch(others)) => {
                let fix = format!("change runner_arch, which is {}, or image", class.arch);
                findings.fail(format!("{what} has {alias} for {others:?} only"), fix);
            }
            Ok(Found::OtherProduct) => {
                let fix = "name another server; images: and ubuntu: are built in and fit the product";
                findings.fail(format!("{what} has {alias}, but not in a form for {product}"), fix);
            }
            Ok(Found::OtherType) => {
                findings.fail(format!("{what} has {alias}, but not as a {kind}"), "change type or image");
            }
            Err(error) => findings.warn(format!(
                "{what} could not be asked whether it has {alias}: {error}; {product} fetches it when it is needed. Ask \
                 where the network allows it: {list}"
            )),
        }
    }

    /// The devices of all profiles; `None` where one is missing.
    fn profiles(&self, class: &Class, findings: &mut Findings<'_>) -> Option<Profile> {
        let (product, client) = (self.server.product, self.server.product.client());
        let mut all = Profile { config: ConfigMap::new(), devices: Devices::new() };
        let mut whole = true;
        for profile in &class.profiles {
            let fix = format!("see {client} profile list, or make it: {client} profile create {profile}");
            let found = self.lxd.profile(&class.project, profile);
            match findings.found(found, format!("{product} has no profile {profile:?}"), fix) {
                Some(found) => {
                    all.config.extend(found.config);
                    all.devices.extend(found.devices);
                }
                None => whole = false,
            }
        }
        if whole {
            findings.ok(format!("profiles {}", class.profiles.join(", ")));
        }
        whole.then_some(all)
    }

    fn disk(&mut self, class: &Class, devices: &Devices, findings: &mut Findings<'_>) {
        let get = |d: &BTreeMap<String, String>, key: &str| d.get(key).cloned().unwrap_or_default();
        let root = devices.values().find(|d| get(d, "type") == "disk" && get(d, "path") == "/");
        let Some(pool) = root.map(|d| get(d, "pool")) else {
            let first = class.profiles.first().map_or("default", String::as_str);
            let client = self.server.product.client();
            let fix = format!("add one: {client} profile device add {first} root disk path=/ pool=POOL");
            findings.fail("neither the profiles nor the class have a root disk", fix);
            return;
        };
        self.copies(class, &pool, findings);
        if let Some(good) = self.pools.get(&pool) {
            if *good {
                findings.ok(format!("storage pool {pool}"));
            } else {
                findings.fail(format!("storage pool {pool}"), "see above");
            }
            return;
        }
        let good = self.pool(&pool, findings);
        self.pools.insert(pool, good);
    }

    /// What templates and standbys cost there.
    fn copies(&self, class: &Class, pool: &str, findings: &mut Findings<'_>) {
        if !class.template {
            findings.ok("no template (template: false), jobs start from the image");
            return;
        }
        let image = template_kind(class, self.server.clustered) == TemplateKind::Image;
        if image {
            findings.ok(format!(
                "{} is a cluster, so the template is an image, some hundred MB in each member's image store; where \
                 all instances are on one member, target: MEMBER starts jobs a second sooner",
                self.server.product
            ));
        }
        let driver = self.lxd.storage_pool(pool).ok().flatten().map(|found| found.driver).unwrap_or_default();
        if driver == "dir" {
            let what =
                if image { "unpacks the template's image" } else { "copies the template, which writes the whole root" };
            findings.warn(format!(
                "storage pool {pool} is on plain directories: each job {what} anew, some hundred MB and seconds; use \
                 a pool on btrfs or zfs"
            ));
        }
        if class.standby > 0 {
            let many = if class.standby == 1 {
                "1 standby holds its".to_owned()
            } else {
                format!("{} standbys hold their", class.standby)
            };
            findings.ok(format!("{many} memory all the time, and count in max_workers"));
        }
    }

    fn pool(&self, pool: &str, findings: &mut Findings<'_>) -> bool {
        let product = self.server.product;
        let (missing, fix) =
            (format!("{product} has no storage pool {pool:?}"), format!("see {} storage list", product.client()));
        let Some(found) = findings.found(self.lxd.storage_pool(pool), missing, fix) else { return false };
        let free = found.space.map(|(used, total)| total.saturating_sub(used));
        let shown = free.map(|f| format!(", {:.1} GiB free", f as f64 / GIB as f64)).unwrap_or_default();
        let what = format!("storage pool {pool} ({}{shown})", found.driver);
        let ready = found.status.is_empty() || found.status == "Created";
        match free {
            _ if !ready => {
                findings.fail(
                    what,
                    format!("its status is {}: see {} storage show {pool}", found.status, product.client()),
                );
                return false;
            }
            Some(free) if free < LEAST_SPACE => {
                findings.fail(what, "a runner needs 1 GiB at the least: remove what is not needed, or enlarge it");
                return false;
            }
            Some(free) if free < SOME_SPACE => findings.warn(format!("{what}: that is not much for jobs")),
            _ => findings.ok(what),
        }
        true
    }

    fn network(&self, class: &Class, devices: &Devices, findings: &mut Findings<'_>) {
        let (product, client) = (self.server.product, self.server.product.client());
        let nics: Vec<_> = devices.iter().filter(|(_, d)| d.get("type").is_some_and(|t| t == "nic")).collect();
        if nics.is_empty() {
            let first = class.profiles.first().map_or("default", String::as_str);
            let fix = format!("a runner must reach GitHub: {client} network attach-profile NETWORK {first} eth0");
            findings.fail("neither the profiles nor the class have a network device", fix);
        }
        for (nic, device) in nics {
            let Some(network) = device.get("network").or_else(|| device.get("parent")) else {
                findings.ok(format!("network device {nic}"));
                continue;
            };
            let missing = format!("{product} has no network {network:?}, which device {nic} names");
            let found = self.lxd.network(&class.project, network);
            if findings.found(found, missing, format!("see {client} network list")).is_some() {
                findings.ok(format!("network {network}"));
            }
        }
    }
}

/// LXD's words for what GitHub calls the processor. A 64-bit ARM runs 32-bit instances under its own name.
fn lxd_arch(arch: RunnerArch) -> &'static [&'static str] {
    match arch {
        RunnerArch::X64 => &["x86_64"],
        RunnerArch::Arm64 => &["aarch64"],
        RunnerArch::Arm => &["armv7l", "armv8l"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_limit_that_is_too_low_for_the_containers_is_told() {
        let check = |max_workers: usize, limit: &str, tells: Option<&str>| {
            let warning = watchers(max_workers, limit);
            assert_eq!(warning.is_some(), tells.is_some(), "{warning:?}");
            assert!(tells.is_none_or(|part| warning.unwrap_or_default().contains(part)));
        };
        check(9, "128\n", None);
        check(10, "128\n", Some("some 9 containers"));
        check(500, "8192", None);
        check(500, "", None);
    }
}
