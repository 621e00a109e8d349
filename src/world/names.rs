//! Names of instances, and the recipes of templates.

use sha2::{Digest, Sha256};

use super::TemplateKind;
use crate::config::Class;
use crate::model::{InstanceType, JobId, Recipe};

/// LXD takes names of 63 characters; a virtual machine's must stay under 40.
const LONGEST: usize = 63;
const LONGEST_OF_VM: usize = 39;
/// Hexadecimal digits that tell standbys, idle runners and templates apart.
const DIGITS: usize = 8;

/// The kind of a name that only lxdrunner gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// Launched for a job, the `n`-th of its instances.
    Job(JobId, u32),
    /// Prepared as a standby; its runner, once it has one, has this name too.
    Standby,
    /// Launched to be idle.
    Idle,
    /// A template.
    Template,
}

/// The `n`-th name for a job's instance.
pub fn instance_name(prefix: &str, job: JobId, n: u32) -> String {
    format!("{prefix}-{job}-{n}")
}

/// A name that is not for a job: `kind` is `standby` or `idle`.
pub(crate) fn random_name(prefix: &str, kind: &str, random: u64) -> String {
    let digits = format!("{random:016x}");
    format!("{prefix}-{kind}-{}", digits.get(..DIGITS).unwrap_or_default())
}

/// A template's name: the class for people, and the recipe, so that the name is the claim on baking it.
pub fn template_name(prefix: &str, class: &Class, recipe: &Recipe) -> String {
    let longest = if class.kind == InstanceType::VirtualMachine { LONGEST_OF_VM } else { LONGEST };
    let digits = recipe.content.get(..DIGITS).unwrap_or(&recipe.content);
    let around = prefix.len() + "-template-".len() + "-".len() + digits.len();
    let mut slug = String::new();
    for c in class.name.to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' => slug.push(c),
            _ if slug.ends_with('-') || slug.is_empty() => {}
            _ => slug.push('-'),
        }
    }
    slug.truncate(longest.saturating_sub(around));
    match slug.trim_end_matches('-') {
        "" => format!("{prefix}-template-{digits}"),
        slug => format!("{prefix}-template-{slug}-{digits}"),
    }
}

/// The kind of a name; `None` for a name that lxdrunner never gives.
pub fn parse_name(prefix: &str, name: &str) -> Option<NameKind> {
    let (kind, rest) = name.strip_prefix(prefix)?.strip_prefix('-')?.split_once('-')?;
    let digits =
        |text: &str| text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
    match kind {
        "standby" => digits(rest).then_some(NameKind::Standby),
        "idle" => digits(rest).then_some(NameKind::Idle),
        "template" => digits(rest.rsplit('-').next()?).then_some(NameKind::Template),
        job => {
            let (job, n) = (JobId(job.parse().ok()?), rest.parse().ok()?);
            (instance_name(prefix, job, n) == name).then_some(NameKind::Job(job, n))
        }
    }
}

/// A digest of the class's settings and of the built-in `scripts`: templates of one shape are interchangeable.
pub(crate) fn shape(class: &Class, scripts: &str) -> String {
    let Class { image, kind, arch, profiles, inside, config, devices, project, target, .. } = class;
    let parts = (image, kind, arch, profiles, inside, config, devices, project, target, scripts);
    digest(&format!("{parts:?}"))
}

/// The recipe for this image fingerprint and runner version.
pub(crate) fn recipe(shape: &str, fingerprint: &str, version: &str, form: TemplateKind) -> Recipe {
    let form = if form == TemplateKind::Image { " image" } else { "" };
    Recipe { shape: shape.to_owned(), content: digest(&format!("{shape} {fingerprint} {version}{form}")) }
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The `n`-th number that follows from `seed` (SplitMix64): no secret, only unlikely to come twice.
pub(crate) fn nth_random(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Inside;
    use crate::world::testkit::class;

    #[test]
    fn only_names_that_we_would_give_are_taken_for_ours() {
        let check = |name: &str, expected: Option<NameKind>| {
            assert_eq!(parse_name("lxdrunner", name), expected, "{name}");
        };
        check("lxdrunner-77-1", Some(NameKind::Job(JobId(77), 1)));
        check("lxdrunner-77-12", Some(NameKind::Job(JobId(77), 12)));
        check("lxdrunner-standby-0123abcd", Some(NameKind::Standby));
        check("lxdrunner-idle-0123abcd", Some(NameKind::Idle));
        check("lxdrunner-template-0123abcd", Some(NameKind::Template));
        check("lxdrunner-template-my-class-0123abcd", Some(NameKind::Template));
        check("lxdrunner-placeholder", None);
        check("lxdrunner-standby-0123ABCD", None);
        check("lxdrunner-standby-0123abc", None);
        check("lxdrunner-standby-", None);
        check("lxdrunner-idle-x", None);
        check("lxdrunner-template-mine", None);
        check("lxdrunner-77", None);
        check("lxdrunner-077-1", None);
        check("lxdrunner-+7-1", None);
        check("lxdrunner-77-1-1", None);
        check("lxdrunner2-77-1", None);
        check("other-77-1", None);
        check("lxdrunner-99999999999999999999-1", None);
    }

    #[test]
    fn a_templates_name_fits_and_is_one_of_ours() {
        let recipe = recipe("s", "f", "v", TemplateKind::Instance);
        let digits = &recipe.content[..8];
        #[track_caller]
        fn check(prefix: &str, name: &str, kind: InstanceType, recipe: &Recipe, expected: String) {
            let class = Class { kind, ..class(name, &[], 1) };
            let given = template_name(prefix, &class, recipe);
            assert_eq!(given, expected);
            assert_eq!(parse_name(prefix, &given), Some(NameKind::Template));
        }
        let (vm, container) = (InstanceType::VirtualMachine, InstanceType::Container);
        let long = "x".repeat(100);
        let twenty = "p".repeat(20);
        check("lxdrunner", "Ubuntu 24.04", container, &recipe, format!("lxdrunner-template-ubuntu-24-04-{digits}"));
        check("l", "--ä--", container, &recipe, format!("l-template-{digits}"));
        check("l", &long, container, &recipe, format!("l-template-{}-{digits}", "x".repeat(43)));
        check("l", &long, vm, &recipe, format!("l-template-{}-{digits}", "x".repeat(19)));
        check(&twenty, &long, vm, &recipe, format!("{twenty}-template-{digits}"));
        assert_eq!(format!("{twenty}-template-{digits}").len(), 38);
    }

    #[test]
    fn a_recipe_changes_with_all_that_shapes_a_template_and_with_nothing_else() {
        let usual = class("a", &["x"], 1);
        let of = |class: &Class| shape(class, "scripts");
        #[track_caller]
        fn check(usual: &str, other: &str, same: bool) {
            assert_eq!(usual == other, same);
        }
        let base = of(&usual);
        let of_base = |fingerprint: &str, version: &str, form: TemplateKind| recipe(&base, fingerprint, version, form);
        check(&base, &of(&Class { max_workers: 9, standby: 3, idle: 1, ..usual.clone() }), true);
        let env = [("A".to_owned(), "b".to_owned())].into();
        check(&base, &of(&Class { inside: Inside { env, ..Inside::default() }, ..usual.clone() }), false);
        check(&base, &of(&Class { profiles: vec![], ..usual.clone() }), false);
        check(&base, &of(&Class { kind: InstanceType::VirtualMachine, ..usual.clone() }), false);
        check(&base, &shape(&usual, "other scripts"), false);
        check(
            &of_base("f", "1", TemplateKind::Instance).content,
            &of_base("f", "2", TemplateKind::Instance).content,
            false,
        );
        check(
            &of_base("f", "1", TemplateKind::Instance).content,
            &of_base("g", "1", TemplateKind::Instance).content,
            false,
        );
        check(
            &of_base("f", "1", TemplateKind::Instance).content,
            &of_base("f", "1", TemplateKind::Image).content,
            false,
        );
        check(
            &of_base("f", "1", TemplateKind::Instance).to_string(),
            &of_base("f", "1", TemplateKind::Instance).to_string(),
            true,
        );
    }
}
