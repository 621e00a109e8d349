//! Limits and restrictions of the project and requirements of the image. LXD reports them only when an instance is made or
//! started.

use super::Findings;
use crate::config::Class;
use crate::lxd::{Image, Project};
use crate::model::{ConfigMap, InstanceType};

/// Settings that a restricted project forbids unless the key behind them has this value (LXD's and Incus' project config).
const RESTRICTED: &[(&str, &str, &str)] = &[
    ("security.nesting", "restricted.containers.nesting", "allow"),
    ("security.privileged", "restricted.containers.privilege", "allow"),
    ("security.syscalls.intercept.mknod", "restricted.containers.interception", "allow"),
    ("security.syscalls.intercept.setxattr", "restricted.containers.interception", "allow"),
];

/// `config` is the instances', profiles included.
pub(super) fn by_project(class: &Class, config: &ConfigMap, project: &Project, findings: &mut Findings<'_>) {
    let set = |key: &str| project.config.get(key).map(String::as_str);
    let of_kind = match class.kind {
        InstanceType::Container => "limits.containers",
        InstanceType::VirtualMachine => "limits.virtual-machines",
    };
    for key in ["limits.instances", of_kind] {
        let most = set(key).and_then(|most| most.parse::<usize>().ok());
        if let Some(most) = most.filter(|most| *most < class.max_workers) {
            findings.warn(format!(
                "project {} allows {most} instances ({key}), templates included, and max_workers is {}: launches beyond \
                 it fail; raise {key}, or lower max_workers",
                project.name, class.max_workers
            ));
        }
    }
    if set("restricted") != Some("true") || class.kind != InstanceType::Container {
        return;
    }
    for (setting, key, allowed) in RESTRICTED {
        if config.get(*setting).is_some_and(|value| value == "true") && set(key) != Some(allowed) {
            let what = format!("{setting} is on, which the restricted project {} forbids", project.name);
            findings.fail(what, format!("set {key}={allowed} in the project, or use another project"));
        }
    }
}

/// The same; of the image.
pub(super) fn by_image(class: &Class, config: &ConfigMap, image: &Image, findings: &mut Findings<'_>) {
    let needs =
        |key: &str, value: &str| image.properties.get(&format!("requirements.{key}")).is_some_and(|v| v == value);
    let is = |key: &str, value: &str| config.get(key).is_some_and(|v| v == value);
    let vm = class.kind == InstanceType::VirtualMachine;
    let unmet = [
        ("secureboot", "false", "security.secureboot", vm),
        ("privileged", "true", "security.privileged", !vm),
        ("nesting", "true", "security.nesting", !vm),
    ];
    for (requirement, value, setting, of_kind) in unmet {
        if of_kind && needs(requirement, value) && !is(setting, value) {
            let what = format!("image {} starts only with {setting}={value}", class.image);
            findings.fail(what, format!("write config: {{{setting}: {value}}} in the class"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::testkit;

    fn map(entries: &[(&str, &str)]) -> ConfigMap {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[track_caller]
    fn check(told: impl FnOnce(&mut Findings<'_>), expected: &[&str]) {
        let mut out = Vec::new();
        let mut findings = Findings::new(&mut out);
        findings.about("class \"one\": ".to_owned());
        told(&mut findings);
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{out}");
        assert!(lines.iter().zip(expected).all(|(line, part)| line.contains(part)), "{out}");
    }

    #[test]
    fn a_projects_limits_and_restrictions_are_told() {
        let class = testkit::class("one", &[], 10);
        let check = |project: &[(&str, &str)], config: &[(&str, &str)], expected: &[&str]| {
            let project = Project { name: "ci".to_owned(), config: map(project) };
            check(|findings| by_project(&class, &map(config), &project, findings), expected);
        };
        let nesting = ("security.nesting", "true");
        check(&[], &[nesting], &[]);
        check(&[("limits.instances", "10")], &[], &[]);
        check(
            &[("limits.instances", "9")],
            &[],
            &["warn class \"one\": project ci allows 9 instances (limits.instances)"],
        );
        check(&[("limits.containers", "3"), ("limits.virtual-machines", "2")], &[], &["(limits.containers)"]);
        check(&[("restricted", "true")], &[], &[]);
        check(&[("restricted", "true")], &[nesting], &["FAIL class \"one\": security.nesting is on"]);
        check(&[("restricted", "false")], &[nesting], &[]);
        check(&[("restricted", "true"), ("restricted.containers.nesting", "allow")], &[nesting], &[]);
        let mknod = ("security.syscalls.intercept.mknod", "true");
        check(&[("restricted", "true")], &[mknod], &["set restricted.containers.interception=allow"]);
    }

    #[test]
    fn what_an_image_requires_is_told() {
        let mut class = testkit::class("one", &[], 10);
        let mut one = |kind: InstanceType, properties: &[(&str, &str)], config: &[(&str, &str)], expected: &[&str]| {
            class.kind = kind;
            let image = serde_json::json!({"fingerprint": "00", "properties": map(properties)});
            let image: Image = serde_json::from_value(image).unwrap();
            check(|findings| by_image(&class, &map(config), &image, findings), expected);
        };
        let secureboot = [("requirements.secureboot", "false")];
        one(
            InstanceType::VirtualMachine,
            &secureboot,
            &[],
            &["write config: {security.secureboot: false} in the class"],
        );
        one(InstanceType::VirtualMachine, &secureboot, &[("security.secureboot", "false")], &[]);
        one(InstanceType::Container, &secureboot, &[], &[]);
        let nesting = [("requirements.nesting", "true")];
        one(InstanceType::Container, &nesting, &[], &["starts only with security.nesting=true"]);
        one(InstanceType::Container, &nesting, &[("security.nesting", "true")], &[]);
    }
}
